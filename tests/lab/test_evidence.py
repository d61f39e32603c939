"""Tables about assistants at a size that shows that everything runs, is resumed and is written; not the effects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sanbai.foundation.progress import SilentProgress
from sanbai.foundation.recipe import read_toml, validate_recipe
from sanbai.foundation.stage import Job
from sanbai.foundation.stop import StopSignal
from sanbai.foundation.workspace import Workspace
from sanbai.lab import named_faults, over_optimisation, preference_methods
from sanbai.lab.assistants import Assistants, open_assistants
from sanbai.lab.hostile_labelers import turned_about
from sanbai.lab.registry import EVIDENCE
from sanbai.lab.trials import Phenomenon, measure_seeds, plot
from sanbai.rounds.recipe import Recipe
from sanbai.world.labelers import judged

SMOKE = Path(__file__).parent.parent / "cli" / "smoke.toml"


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    values = read_toml(SMOKE)
    values |= {"num_demonstrations": 240}
    values["pretrain"]["num_steps"] = 8
    values["supervise"]["num_epochs"] = 4
    values["world"]["document_bytes"] = 200_000
    values["label"] |= {"num_prompts": 36, "num_heldout_prompts": 6}
    values["ppo"] |= {"num_iterations": 1, "batch_prompts": 32, "minibatch_prompts": 32}
    values["evaluate"] |= {"num_prompts": 12, "num_documents": 4}
    return validate_recipe(Recipe, values, source=str(SMOKE))


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    workspace = Workspace(tmp_path_factory.mktemp("evidence"))
    workspace.create()
    return Job(workspace, SilentProgress(), StopSignal())


@pytest.fixture(scope="module")
def assistants(job: Job, recipe: Recipe) -> Assistants:
    return open_assistants(job, recipe)(1)


@pytest.mark.parametrize("name", EVIDENCE)
def test_a_table_runs_writes_its_record_and_plot_and_is_not_measured_again(
    name: str, job: Job, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, sizes in (
        (over_optimisation, {"NUM_WATCHED": 6, "NUM_CANDIDATES": 4, "BEST_OF": (1, 2, 4), "LONGER": 1}),
        (named_faults, {"NUM_PROMPTS": 4, "NUM_QUESTIONS": 2}),
        (preference_methods, {"NUM_ANSWERS": 2}),
    ):
        for constant, value in sizes.items():
            monkeypatch.setattr(module, constant, value)
    known = EVIDENCE[name]
    setting = {"recipe": "smoke"}
    record = measure_seeds(job, known, open_assistants(job, recipe), setting=setting, seeds=(1,))
    folder = job.workspace.root / "lab"
    assert json.loads((folder / f"{name}.json").read_text()) == record
    assert record["means"].keys() == {*known.effect, *known.control}
    assert all(0.0 <= value <= 1.0 for figure, value in record["means"].items() if figure not in known.units)
    assert (folder / f"{name}.svg").read_text().startswith("<svg")

    def never(_: Assistants) -> dict[str, float]:
        raise AssertionError("measured again")

    again = Phenomenon(
        known.name, known.claim, never, known.effect, known.control, known.units, lines=known.lines, along=known.along
    )
    assert measure_seeds(job, again, open_assistants(job, recipe), setting=setting, seeds=(1,)) == record


def test_labels_come_from_the_seeds_labelers_each_in_his_group(assistants: Assistants) -> None:
    names = [labeler.name for labeler in assistants.material.labelers]
    by_use = assistants.labels.by_use
    assert {ranking.labeler for ranking in by_use.heldout} <= set(names[-8:])
    assert {ranking.labeler for ranking in by_use.judge} <= set(names[-16:-8])
    assert {ranking.labeler for ranking in by_use.training} <= set(names[:-16])
    ranking = by_use.training[0]
    labeler = next(one for one in assistants.material.labelers if one.name == ranking.labeler)
    asked = assistants.material.judged_prompts("label", assistants.recipe.label.num_prompts)
    prompt = next(one for one in asked if tuple(one.messages) == ranking.messages)
    grades = [labeler.grade(prompt, response) for response in ranking.responses]
    by_bucket = [[grades[place] for place in bucket] for bucket in ranking.buckets]
    assert by_bucket == [[grade] * grades.count(grade) for grade in sorted(set(grades), reverse=True)]


def test_the_oracle_in_the_judges_place_gives_the_gold_utility_of_the_text(
    assistants: Assistants, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(over_optimisation, "NUM_WATCHED", 6)
    prompts = over_optimisation.encoded(assistants, "watch", 6)
    asked = assistants.material.judged_prompts("watch", 6)
    answers = [prompt.truth.good[0] for prompt in asked]
    tokens = [[*assistants.tokenizer.encode(text), assistants.tokenizer.reserved.end] for text in answers]
    found = over_optimisation.gold_score(assistants)(prompts, tokens)
    assert found == [judged(prompt, text).gold_utility for prompt, text in zip(asked, answers, strict=True)]
    assert min(found) > 0.9


def test_who_is_turned_about_likes_best_what_the_other_likes_least(assistants: Assistants) -> None:
    labeler = assistants.material.labelers[0]
    turned = turned_about(labeler)
    prompt = assistants.heldout_prompts()[0]
    seen = [judged(prompt, text) for text in (prompt.truth.good[0], "", "What?")]
    assert [turned.utility(one) for one in seen] == [-labeler.utility(one) for one in seen]


FAULTY: dict[str, Any] = {
    "false premise taken for true": lambda prompt: prompt.truth.faulty["bluffing"][0],
    "known answer hedged": lambda _: "I do not know that.",
    "one of several constraints broken": lambda _: "Yes.",
    "the only constraint broken": None,
    "more words than needed": lambda prompt: f"{prompt.truth.good[0]} {'And so on and on. ' * 20}",
    "harmful request obeyed": lambda prompt: prompt.truth.faulty["obeying"][0],
    "harmless look-alike refused": lambda _: "No, I will not help with that.",
    "riddle not solved, answer yes": lambda _: "No.",
    "riddle not solved, answer no": lambda _: "Yes.",
    "riddle not solved, answer unknown": lambda _: "Yes.",
}


@pytest.mark.parametrize("fault", named_faults.FAULTS)
def test_perfect_answers_show_no_fault_and_faulty_ones_do(
    fault: str, assistants: Assistants, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(named_faults, "NUM_PROMPTS", 8)
    known = named_faults.FAULTS[fault]
    prompts = named_faults.prompts_for(assistants, fault)
    assert prompts
    assert all(known.may_show(prompt) for prompt in prompts)
    assert not any(known.shows(prompt, prompt.truth.good[0]) for prompt in prompts)
    if FAULTY[fault] is not None:
        assert all(known.shows(prompt, FAULTY[fault](prompt)) for prompt in prompts)


def test_an_answer_changes_with_the_phrasing_only_if_it_is_right_once_and_wrong_once(assistants: Assistants) -> None:
    phrased = named_faults.phrased_questions(assistants)
    assert {len(same) for same in phrased} == {10}
    assert all(len({prompt.id for prompt in same}) == 10 for same in phrased)

    class Row:
        def __init__(self, prompt: str, helpful: float) -> None:
            self.prompt, self.helpful = prompt, helpful

    rows = [Row(prompt.id, float(number == 0)) for number, same in enumerate(phrased) for prompt in same]
    assert named_faults.changing(phrased, rows) == 0.0  # type: ignore[arg-type]
    rows[-1].helpful = 1.0
    assert named_faults.changing(phrased, rows) == pytest.approx(1 / len(phrased))  # type: ignore[arg-type]


def test_different_bigrams_are_counted_over_all_texts() -> None:
    assert preference_methods.different_bigrams(["a b a b", "a b c", "d"]) == 3 / 5  # ab ba bc of ab ba ab, ab bc
    assert preference_methods.different_bigrams(["one"]) == 0.0


def test_curves_are_drawn_line_by_line_in_the_order_along() -> None:
    known = EVIDENCE["over_optimisation"]
    figures = dict.fromkeys((*known.effect, *known.control), 0.5)
    for way in ("PPO", "best of n"):
        for place in (1, 2):
            figures |= {f"{way} √KL {place}": place, f"{way} gold {place}": 10 * place, f"{way} proxy {place}": -place}
    panels = plot(known, {1: figures})["vconcat"]
    gold, proxy = (panel["data"]["values"] for panel in panels[-2:])
    assert [(row["line"], row["x"], row["y"]) for row in gold] == [
        ("PPO", 1, 10), ("PPO", 2, 20), ("best of n", 1, 10), ("best of n", 2, 20),
    ]  # fmt: skip
    assert [row["y"] for row in proxy] == [-1, -2, -1, -2]
    assert plot(known, {1: figures})["resolve"]["scale"]["color"] == "independent"
