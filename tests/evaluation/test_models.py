"""The stage: three models in, one report out; killed and begun again, the same files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation.conftest import tiny_model
from tests.evaluation.rows import Asked, Judged, scored

from sanbai.evaluation.answers import AXES, Contestant, chat_contestant, read_answers, transcript_contestant
from sanbai.evaluation.few_shot import ChoiceItem, ChoiceTask
from sanbai.evaluation.language import HeldOutDocument, bits_per_byte
from sanbai.evaluation.models import Context, HeldOut, evaluate_models, report_with_verdict, sample_conversations
from sanbai.evaluation.recipe import EvaluateRecipe
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.errors import Interrupted
from sanbai.foundation.progress import SilentProgress
from sanbai.foundation.stage import Job, Stage, run_stage
from sanbai.foundation.stop import StopSignal
from sanbai.foundation.workspace import Workspace
from sanbai.generation.sampling import Sampling
from sanbai.text.tokenizer import Tokenizer

RECIPE = EvaluateRecipe(
    num_prompts=6,
    num_documents=3,
    num_choices=2,
    shots=(0, 1),
    sampling=Sampling(temperature=1.0, max_new_tokens=5),
    bootstrap_draws=200,
    sample_tasks=("riddle",),
)
PROMPTS = [Asked(f"p{i}", f"the {i} <b>cows</b>?", kind=("chat", "rewrite")[i % 2], task=f"t{i % 3}") for i in range(7)]
TEXTS = ["The cow likes the miller.", "", "水车 was 50 years old.", "apples", "never read"]


def judge(prompt: Asked, answer: str) -> Judged:
    return Judged(length=len(answer.split()), gold_utility=len(answer) / 10, helpful=float("a" in answer))


def contestants(tokenizer: Tokenizer) -> list[Contestant]:
    models = {name: tiny_model(tokenizer.vocab_size, name=name) for name in ("base", "supervised", "ppo")}
    return [
        transcript_contestant("base", models["base"], tokenizer, max_prompt_tokens=40),
        *(chat_contestant(name, models[name], tokenizer, max_prompt_tokens=40) for name in ("supervised", "ppo")),
    ]


def held_out(tokenizer: Tokenizer) -> HeldOut:
    items = [ChoiceItem(f"i{n}", f"{n} cows?", ["\nYes.", "\nNo."], n % 2) for n in range(5)]
    return HeldOut(
        prompts=PROMPTS,
        judge=judge,
        documents=[HeldOutDocument(tokenizer.encode(text), len(text.encode())) for text in TEXTS],
        choice_tasks=[ChoiceTask("cows", items[:3], items[3:])],
    )


@pytest.fixture
def job(tmp_path: Path) -> Job:
    workspace = Workspace(tmp_path / "workspace")
    workspace.create()
    return Job(workspace, SilentProgress(), StopSignal())


def evaluate(job: Job, tokenizer: Tokenizer, *, judgements: list[str], stop_after: int = -1) -> Artifact:
    """Evaluate; note who was judged, and stop once so many answers have been."""

    def asked(prompt: Asked, answer: str) -> Judged:
        if len(judgements) == stop_after:
            raise Interrupted("stopped in the middle")
        judgements.append(prompt.id)
        return judge(prompt, answer)

    def build(stage: Stage) -> Mapping[str, Any]:
        material = held_out(tokenizer)
        return evaluate_models(
            stage,
            RECIPE,
            contestants(tokenizer),
            tokenizer=tokenizer,
            held_out=HeldOut(material.prompts, asked, material.documents, material.choice_tasks),
            context=Context(
                series={"pretrain": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}]}, seconds={"base": 61.0}
            ),
        )

    return run_stage(
        job,
        kind="report",
        name="evaluate",
        recipe={"evaluate": RECIPE},
        parents={},
        seed=3,
        floor="evaluation",
        num_steps=10,
        build=build,
    )


def test_the_report_holds_every_number_and_stands_alone(job: Job, tokenizer: Tokenizer) -> None:
    artifact = evaluate(job, tokenizer, judgements=[])
    record = json.loads(artifact.file("evaluation.json").read_text())

    assert list(record["evaluation"]) == ["base", "supervised", "ppo"]
    for name, scores in record["evaluation"].items():
        assert set(scores) >= {*AXES, "bits_per_byte"}
        rows = read_answers(artifact.file(f"answers-{name}.jsonl.gz"))
        assert len(rows) == RECIPE.num_prompts
        for axis in AXES:
            assert scores[axis]["mean"] == pytest.approx(sum(getattr(row, axis) for row in rows) / len(rows))
            assert set(scores[axis]) == {"mean", "low", "high", "n"}
        for row in rows:
            assert row.gold_utility == len(row.answer) / 10
    assert set(record["win_rate"]) == {"supervised_vs_base", "ppo_vs_supervised"}
    assert set(record["alignment_tax"]) == {"supervised_vs_base", "ppo_vs_supervised", "ppo_vs_base"}
    assert set(record["by_kind"]) == {"chat", "rewrite"}
    assert set(record["by_kind"]["chat"]) == {"base", "supervised", "ppo", "win_rate"}
    assert record["kl"]["mean"] > 0
    assert record["kl"]["n"] == RECIPE.num_prompts

    ours, theirs = (read_answers(artifact.file(f"answers-{name}.jsonl.gz")) for name in ("ppo", "supervised"))
    wins = [
        1.0 if a.gold_utility > b.gold_utility else 0.5 if a.gold_utility == b.gold_utility else 0.0
        for a, b in zip(ours, theirs, strict=True)
    ]
    assert record["win_rate"]["ppo_vs_supervised"]["mean"] == pytest.approx(sum(wins) / len(wins))

    kept = [text for text in TEXTS if text][: RECIPE.num_documents]
    documents = [HeldOutDocument(tokenizer.encode(text), len(text.encode())) for text in kept]
    expected = bits_per_byte(
        tiny_model(tokenizer.vocab_size, name="ppo"),
        documents,
        begin_id=tokenizer.reserved.end_of_text,
        context=64,
        seed=3,
        draws=200,
    )
    assert record["evaluation"]["ppo"]["bits_per_byte"] == pytest.approx(expected.to_json())
    assert artifact.metrics["ppo.bits_per_byte"] == pytest.approx(expected.mean)

    assert artifact.file("plots/alignment_tax.svg").read_text().startswith("<svg")
    page = report_with_verdict(artifact, {"promote": True, "summary": "promoted", "checks": [], "worse": []})
    assert "Promoted by the gate" in page
    assert "Promoted by the gate" not in artifact.file("report.html").read_text()


def test_a_stopped_evaluation_keeps_finished_answers_and_ends_in_the_same_numbers(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    artifacts = []
    for name, stop_after in (("whole", -1), ("stopped", RECIPE.num_prompts + 2)):
        workspace = Workspace(tmp_path / name)
        workspace.create()
        job = Job(workspace, SilentProgress(), StopSignal())
        judgements: list[str] = []
        if stop_after >= 0:
            with pytest.raises(Interrupted):
                evaluate(job, tokenizer, judgements=[], stop_after=stop_after)
        artifacts.append(evaluate(job, tokenizer, judgements=judgements))
        # The base model had answered everything before the stop; it is not asked again.
        assert len(judgements) == RECIPE.num_prompts * (2 if stop_after >= 0 else 3)
    whole, stopped = (
        {name: entry["sha256"] for name, entry in artifact.manifest["files"].items()} for artifact in artifacts
    )
    assert whole == stopped


def test_samples_are_the_first_prompts_of_their_tasks_with_the_wanted_ones_in_front() -> None:
    answers = {"base": [scored(prompt.id, answer=f"answer to {prompt.id}") for prompt in PROMPTS]}
    samples = sample_conversations(PROMPTS, answers, ("t2", "absent"))
    assert [sample["prompt"] for sample in samples] == ["p2", "p0", "p1"]
    assert samples[0]["answers"]["base"]["answer"] == "answer to p2"
