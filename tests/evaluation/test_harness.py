"""The lm-evaluation-harness says the same of a model through our server, in our process and in transformers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.serving.conftest import Site, running_site

from sanbai.foundation.errors import UsageError
from sanbai.model.exchange import export_model
from sanbai.model.hugging_face import load_language_model
from sanbai.text.tokenizer import Tokenizer, train_tokenizer

pytest.importorskip("lm_eval", reason="needs the extra harness")
pytestmark = pytest.mark.filterwarnings("ignore")  # the harness' own

TOLERANCE = 1e-4
"""Of a continuation's log-probability in nats: float32 sums in another order, over some twenty tokens."""

QUESTIONS = [
    {"question": "Who bakes bread in the mill?", "choices": ["Anna", "her son", "12 + 30"], "answer": 0},
    {"question": "What does her son like?", "choices": ["bread", "painting", "the mill and so does Anna"], "answer": 1},
    {"question": "12 + 30 =", "choices": ["42", "12", "村里有一座磨坊。"], "answer": 0},
    {"question": "Anna bakes 😀 bread", "choices": ["in", "the mill", "x"], "answer": 1},
    {"question": "Her son likes", "choices": ["a", "b", "Anna bakes bread in the mill. Her son"], "answer": 2},
]
CHOICES = """
task: village_choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
WRITING = """
task: village_writing
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[answer]}}}}"
generation_kwargs: {{until: ["zz", "\\n\\n", "qq", "ww", "Anna "], max_gen_toks: 24, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""
READING = """
task: village_reading
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{question}}}} {{{{choices[0]}}}} {{{{question}}}}"
metric_list: [{{metric: bits_per_byte}}]
"""
TASKS = {"village_choices": CHOICES, "village_writing": WRITING, "village_reading": READING}
Results = dict[str, Any]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = [f"{each['question']} {choice} " for each in QUESTIONS for choice in each["choices"]]
    return train_tokenizer(texts * 5, vocab_size=330)


@pytest.fixture(scope="module")
def offline() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"):
            patch.setenv(name, "1")
        yield


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("harness"), tokenizer) as made:
        yield made


@pytest.fixture(scope="module")
def folder(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The served model, as transformers reads it."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    export_model(site.workspace.load("model-000000000000"), folder)
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory, offline: None) -> Any:
    from lm_eval.tasks import TaskManager

    place = tmp_path_factory.mktemp("tasks")
    data = place / "questions.jsonl"
    data.write_text("".join(json.dumps(each) + "\n" for each in QUESTIONS), encoding="utf-8")
    for name, text in TASKS.items():
        (place / f"{name}.yaml").write_text(text.format(data=data), encoding="utf-8")
    return TaskManager(include_path=str(place), include_defaults=False)


def evaluate(tasks: Any, kind: str, /, **arguments: Any) -> Results:
    import datasets
    import lm_eval

    datasets.disable_progress_bars()
    found = lm_eval.simple_evaluate(kind, arguments, tasks=list(TASKS), task_manager=tasks, bootstrap_iters=0)
    assert found is not None
    return dict(found)


@pytest.fixture(scope="module")
def ours(tasks: Any, folder: Path) -> Results:
    import sanbai.evaluation.harness  # noqa: F401 - registers the model

    return evaluate(tasks, "sanbai", pretrained=str(folder), batch_size=3)


@pytest.fixture(scope="module")
def transformers(tasks: Any, folder: Path) -> Results:
    return evaluate(tasks, "hf", pretrained=str(folder), dtype="float32", device="cpu", batch_size=2)


@pytest.fixture(scope="module", params=["huggingface", "remote"])
def served(request: pytest.FixtureRequest, tasks: Any, site: Site, folder: Path) -> Results:
    """The harness' own client; the tokenizer of the exported folder, or the server's by its routes."""
    key, backend = site.key(), request.param
    tokenizer = {"tokenizer": str(folder)} if backend == "huggingface" else {"auth_token": key}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", key)
        return evaluate(
            tasks,
            "local-completions",
            model="sanbai",
            base_url=f"{site.url}/v1/completions",
            tokenizer_backend=backend,
            max_length=256,
            batch_size=4,
            **tokenizer,
        )


def answers(results: Results, task: str) -> list[Any]:
    """What the model said of each document, in their order."""
    samples = sorted(results["samples"][task], key=lambda sample: sample["doc_id"])
    return [sample["filtered_resps"] for sample in samples]


def check_equal(found: Results, wanted: Results) -> None:
    for mine, theirs in zip(answers(found, "village_choices"), answers(wanted, "village_choices"), strict=True):
        assert [logprob for logprob, _ in mine] == pytest.approx([logprob for logprob, _ in theirs], abs=TOLERANCE)
        assert [is_greedy for _, is_greedy in mine] == [is_greedy for _, is_greedy in theirs]
    for mine, theirs in zip(answers(found, "village_reading"), answers(wanted, "village_reading"), strict=True):
        assert mine[0] == pytest.approx(theirs[0], abs=TOLERANCE * 5)  # a longer text
    assert answers(found, "village_writing") == answers(wanted, "village_writing")
    for task, metrics in wanted["results"].items():
        for name, value in metrics.items():
            if isinstance(value, float) and math.isfinite(value):
                assert found["results"][task][name] == pytest.approx(value, abs=1e-4), (task, name)


def test_the_tasks_tell_answers_apart(transformers: Results) -> None:
    """Else equality below would mean little."""
    scores = [logprob for row in answers(transformers, "village_choices") for logprob, _ in row]
    assert len({round(score, 3) for score in scores}) == len(scores) == 15
    written = [text for (text,) in answers(transformers, "village_writing")]
    assert len(set(written)) > 2
    assert all(written)


def test_in_our_process_the_harness_says_what_it_says_of_transformers(ours: Results, transformers: Results) -> None:
    check_equal(ours, transformers)
    assert ours["results"]["village_choices"]["acc,none"] == transformers["results"]["village_choices"]["acc,none"]


def test_through_the_server_the_harness_says_what_it_says_of_transformers(
    served: Results, transformers: Results
) -> None:
    check_equal(served, transformers)
    assert served["results"]["village_choices"]["acc,none"] == transformers["results"]["village_choices"]["acc,none"]


def test_a_text_longer_than_the_context_is_read_in_windows(folder: Path, tokenizer: Tokenizer) -> None:
    """Against a plain pass over each window: every token once, each with all that fits before it."""
    import torch
    from lm_eval.api.instance import Instance

    from sanbai.evaluation.harness import SanbaiLM

    lm = SanbaiLM(str(folder), batch_size=2)
    text = "Her son likes painting, and so does Anna 村里. " * 20
    ids = tokenizer.encode(text)
    assert len(ids) > lm.max_length > 200
    model, expected, start = load_language_model(folder), 0.0, 0
    while start < len(ids):
        new = ids[start : start + lm.max_length - (start == 0)]
        before = [lm.eot_token_id, *ids[:start]]
        row = [*before, *new][-lm.max_length - (start > 0) :]
        with torch.inference_mode():
            logprobs_TV = model(torch.tensor([row[:-1]]))[0].double().log_softmax(-1)
        last = len(row) - 1
        expected += sum(float(logprobs_TV[place, row[place + 1]]) for place in range(last - len(new), last))
        start += len(new)
    (found,) = lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)])
    assert found == pytest.approx(expected, rel=5e-3)


def test_a_marker_in_a_task_is_text(folder: Path, tokenizer: Tokenizer) -> None:
    """Where transformers makes a reserved token of it."""
    from sanbai.evaluation.harness import SanbaiLM

    found = SanbaiLM(str(folder)).tok_encode("Anna <|end|> bakes")
    assert found == tokenizer.encode("Anna <|end|> bakes")
    assert not tokenizer.reserved_ids & set(found)


def test_a_setting_that_does_not_exist_is_refused_by_name(folder: Path) -> None:
    from sanbai.evaluation.harness import SanbaiLM

    with pytest.raises(UsageError, match=r"^dtype: unknown; --model sanbai takes"):
        SanbaiLM(str(folder), dtype="float16")


@pytest.mark.long  # it looks through all of the harness' own tasks first
def test_the_command_line_knows_our_model(
    folder: Path, tasks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: Results
) -> None:
    from sanbai.evaluation.harness import main

    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(each) + "\n" for each in QUESTIONS), encoding="utf-8")
    (tmp_path / "village_choices.yaml").write_text(CHOICES.format(data=data), encoding="utf-8")
    words = f"lm_eval run --model sanbai --model_args pretrained={folder} --tasks village_choices --include_path"
    monkeypatch.setattr("sys.argv", [*words.split(), str(tmp_path), "--output_path", str(tmp_path / "out")])
    main()
    (found,) = (tmp_path / "out").rglob("results_*.json")
    assert json.loads(found.read_text())["results"]["village_choices"]["acc,none"] == pytest.approx(
        ours["results"]["village_choices"]["acc,none"]
    )
