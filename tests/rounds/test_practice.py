"""The whole path on people's own files, in miniature; and what a wrong file says."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from sanbai.data.rankings import Ranking
from sanbai.foundation.device import apply_compute
from sanbai.foundation.errors import DataError, Interrupted, RecipeError
from sanbai.foundation.progress import SilentProgress
from sanbai.foundation.recipe import read_toml, validate_recipe
from sanbai.foundation.stage import Job
from sanbai.foundation.stop import StopSignal
from sanbai.foundation.workspace import Workspace
from sanbai.rounds.material import FilesMaterial
from sanbai.rounds.practice import freeze_preferences, read_preferences_by_use, run_files
from sanbai.rounds.recipe import Recipe

RECIPE = """
seed = 3
material = "files"
compute = { num_threads = 1, precision = "float32" }
data = { validation_share = 0.25 }
tokenizer = { vocab_size = 400 }

[files]
heldout_share = 0.4

[[files.documents]]
path = "text/*.jsonl.gz"
licence = "CC0 1.0"

[[files.demonstrations]]
path = "asked.jsonl"
layout = "pair"
prompt_fields = ["question"]
response_field = "answer"
leave_out_phrases = ["the passage"]

[[files.preferences]]
path = "compared.jsonl"
layout = "chosen"
labeler = "villagers"

[model]
num_layers = 1
width = 16
num_heads = 2
num_kv_heads = 2
head_width = 8
feed_forward_width = 24
max_positions = 128

[pretrain]
num_steps = 20
row_length = 32
batch_rows = 8
learning_rate = 1e-2
warmup_steps = 2

[supervise]
num_epochs = 1
row_length = 48
batch_rows = 4

[reward]
max_prompt_tokens = 32
max_response_tokens = 24
batch_prompts = 16
learning_rate = 3e-3

[ppo]
num_iterations = 2
batch_prompts = 8
minibatch_prompts = 4
max_new_tokens = 8
ptx_ratio = 0.5
ptx_row_length = 32
ptx_coef = 1.0
judge_iterations = 1

[evaluate]
num_prompts = 6
num_documents = 20
bootstrap_draws = 200
sampling = { temperature = 1.0, max_new_tokens = 8 }
"""

ANIMALS = ("cow", "goat", "hen", "dog", "cat", "owl", "fox", "bee")
PLACES = ("mill", "well", "barn", "pond", "road", "hill")


def write_files(folder: Path) -> None:
    """Write documents, demonstrations and comparisons in which people like the answer that names an animal."""
    generator = random.Random(1)

    def sentence() -> str:
        animal, place = generator.choice(ANIMALS), generator.choice(PLACES)
        return f"The {animal} of house {generator.randrange(1000)} went to the {place}."

    (folder / "text").mkdir()
    for part in range(2):
        rows = [{"id": f"{part}-{n}", "text": " ".join(sentence() for _ in range(8))} for n in range(60)]
        with gzip.open(folder / "text" / f"part{part}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    asked: list[dict[str, Any]] = [
        {"question": f"Who went to the {place} on day {n}?", "answer": f"The {ANIMALS[n % 8]}."}
        for n, place in enumerate(PLACES * 5)
    ]
    asked.append({"question": "By the passage, who?", "answer": "Nobody."})
    (folder / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    compared = [
        {"prompt": f"Who is at house {n}?", "chosen": f"The {ANIMALS[n % 8]}.", "rejected": "I say nothing at all."}
        for n in range(80)
    ]
    (folder / "compared.jsonl").write_text("".join(json.dumps(row) + "\n" for row in compared))


def recipe_of(tmp_path: Path, **changes: Any) -> Recipe:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return validate_recipe(Recipe, {**read_toml(path), **changes}, source=str(path))


def job_in(root: Path) -> Job:
    workspace = Workspace(root)
    workspace.create()
    return Job(workspace, SilentProgress(), StopSignal())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a run with its workspace, and its record."""
    folder = tmp_path_factory.mktemp("files")
    write_files(folder)
    recipe = recipe_of(folder)
    apply_compute(recipe.compute)
    return folder, run_files(job_in(folder / "workspace"), recipe, folder)


def test_every_stage_runs_on_files_and_is_in_the_record(finished: tuple[Path, dict[str, Any]]) -> None:
    _, record = finished
    assert list(record["seconds"]) == [
        "corpus", "tokenizer", "shards", "pretrain", "demonstrations", "supervise", "snapshot", "reward", "judge",
        "ppo", "ppo_without_ptx", "evaluate",
    ]  # fmt: skip
    assert record["models"] == ["base", "supervised", "ppo", "ppo_without_ptx"]
    assert len(set(record["artifacts"].values())) == 4
    json.dumps(record)


def test_the_readers_stand_side_by_side_with_intervals(finished: tuple[Path, dict[str, Any]]) -> None:
    reading = finished[1]["reading"]
    assert list(reading["bits_per_byte"]) == ["ngram", "base", "supervised", "ppo", "ppo_without_ptx"]
    assert all(0 < each["low"] <= each["mean"] <= each["high"] for each in reading["bits_per_byte"].values())
    assert reading["bits_per_byte"]["ngram"]["mean"] < reading["xz"]["after_training"] < reading["xz"]["alone"]
    assert set(reading["by_source"]) == {"text/part0.jsonl.gz", "text/part1.jsonl.gz"}
    assert sum(found["base"]["n"] for found in reading["by_source"].values()) == reading["num_documents"] <= 20


def test_the_reward_model_learns_what_people_like_and_stands_beside_length(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    record = finished[1]
    assert record["reward_model"]["accuracy"]["mean"] > 0.9
    assert record["reward_model"]["longer_wins"]["mean"] == 0.0
    assert set(record["reward_model"]["by_source"]) == {"villagers"}
    assert record["judge"]["num_pairs"] == record["reward_model"]["num_pairs"] == record["snapshot"]["heldout"]


def test_practice_is_measured_against_the_supervised_model(finished: tuple[Path, dict[str, Any]]) -> None:
    practice = finished[1]["practice"]
    assert practice["supervised"]["kl"]["mean"] == 0.0
    assert "judge_reward_gain" not in practice["supervised"]
    for policy in ("ppo", "ppo_without_ptx"):
        assert practice[policy]["kl"]["mean"] >= 0.0
        gain = practice[policy]["judge_reward"]["mean"] - practice["supervised"]["judge_reward"]["mean"]
        assert practice[policy]["judge_reward_gain"]["mean"] == pytest.approx(gain)
    assert set(finished[1]["alignment_tax"]) == {
        "supervised_vs_base", "ppo_vs_supervised", "ppo_without_ptx_vs_supervised", "ppo_vs_ppo_without_ptx",
    }  # fmt: skip


def test_the_page_says_what_was_found_and_asks_for_nothing(finished: tuple[Path, dict[str, Any]]) -> None:
    page = Path(finished[1]["report"]).read_text(encoding="utf-8")
    for words in ("5-gram, Kneser-Ney", "xz -9e after the training text", "Practised without ptx", "villagers"):
        assert words in page
    assert page.count("<article") == 3
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_the_same_request_makes_nothing_anew(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, record = finished
    before = sorted((folder / "workspace" / "artifacts").iterdir())
    assert run_files(job_in(folder / "workspace"), recipe_of(folder), folder) == record
    assert sorted((folder / "workspace" / "artifacts").iterdir()) == before


def test_a_stopped_evaluation_continues_with_the_same_numbers(
    finished: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, record = finished
    workspace = Workspace(folder / "workspace")
    [report] = workspace.list("report")
    report.path.rename(folder / "aside")
    job = job_in(folder / "workspace")
    monkeypatch.setattr("sanbai.evaluation.files.xz_bits", lambda *_, on_piece, **__: job.stop.request() or on_piece())
    with pytest.raises(Interrupted):
        run_files(job, recipe_of(folder), folder)
    monkeypatch.undo()
    monkeypatch.setattr("sanbai.evaluation.files.model_bits", lambda *_, **__: pytest.fail("read before the stop"))
    again = run_files(job_in(folder / "workspace"), recipe_of(folder), folder)
    assert {**again, "seconds": {}} == {**record, "seconds": {}}


def test_each_prompt_has_one_use(tmp_path: Path) -> None:
    write_files(tmp_path)
    material = FilesMaterial(recipe_of(tmp_path), tmp_path)
    uses = [{ranking.messages[0]["content"] for ranking in each} for each in vars_of(material)]
    assert sum(map(len, uses)) == len(set.union(*uses)) == 80
    assert all(len(each) > 10 for each in uses)
    practised = {prompt.id for prompt in material.prompts("practise", 1000)}
    watched = {prompt.id for prompt in material.prompts("watch", 1000)}
    evaluated = {prompt.id for prompt in material.prompts("evaluate", 1000)}
    assert len(practised) == len(uses[0]) + len(uses[1])
    assert len(practised | watched | evaluated) == len(practised) + len(watched) + len(evaluated) == 80
    assert watched
    assert evaluated


def vars_of(material: FilesMaterial) -> list[list[Ranking]]:
    found = material.preferences
    return [found.training, found.judge, found.heldout]


def test_a_snapshot_gives_back_its_comparisons_whatever_their_order(tmp_path: Path) -> None:
    write_files(tmp_path)
    job = job_in(tmp_path / "workspace")
    preferences = FilesMaterial(recipe_of(tmp_path), tmp_path).preferences
    snapshot = freeze_preferences(job, preferences, seed=3)
    found = read_preferences_by_use(snapshot)
    assert sorted(each.id for each in found.judge) == sorted(each.id for each in preferences.judge)
    for each in (preferences.training, preferences.judge, preferences.heldout):
        each.reverse()
    assert freeze_preferences(job, preferences, seed=3).name == snapshot.name


def test_comparisons_that_are_all_ties_are_refused(tmp_path: Path) -> None:
    write_files(tmp_path)
    preferences = FilesMaterial(recipe_of(tmp_path), tmp_path).preferences
    preferences.judge[:] = [
        Ranking(each.id, each.messages, each.responses, ((0, 1),), each.labeler) for each in preferences.judge
    ]
    with pytest.raises(DataError, match="the use 'judge', and none prefers an answer"):
        freeze_preferences(job_in(tmp_path / "workspace"), preferences, seed=3)


def test_a_folder_or_file_that_is_missing_ends_the_run_at_once(tmp_path: Path) -> None:
    write_files(tmp_path)
    job = job_in(tmp_path / "workspace")
    with pytest.raises(DataError, match=r"elsewhere: no such folder; name the one .* with --data"):
        run_files(job, recipe_of(tmp_path), tmp_path / "elsewhere")
    (tmp_path / "compared.jsonl").unlink()
    with pytest.raises(DataError, match=r"compared\.jsonl: no such file"):
        run_files(job, recipe_of(tmp_path), tmp_path)
    assert job.workspace.list() == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'{"id": "a", "text": "x"}\n{"id": "b", "text": ', r"part0\.jsonl\.gz:2: not JSON"),
        (b'{"id": "a", "txt": "x"}\n', r"part0\.jsonl\.gz:1: no field 'text'; did you mean txt\?"),
        (b'{"id": "a", "text": "\xff"}\n', r"part0\.jsonl\.gz:1: byte 21 of the line is not UTF-8"),
    ],
)
def test_a_damaged_document_is_named_by_its_line(tmp_path: Path, content: bytes, complaint: str) -> None:
    write_files(tmp_path)
    (tmp_path / "text" / "part0.jsonl.gz").write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=complaint):
        run_files(job_in(tmp_path / "workspace"), recipe_of(tmp_path), tmp_path)


def test_an_archive_that_was_cut_is_named(tmp_path: Path) -> None:
    write_files(tmp_path)
    path = tmp_path / "text" / "part1.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"part1\.jsonl\.gz: damaged gzip file"):
        run_files(job_in(tmp_path / "workspace"), recipe_of(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"files": {"documents": [{"path": "a.txt"}]}}, "files.demonstrations names none"),
        (
            {"reward": {"max_prompt_tokens": 110, "max_response_tokens": 24}},
            "make 135 tokens, above model.max_positions 128",
        ),
        ({"ppo": {"max_new_tokens": 30}}, "ppo.max_new_tokens 30 exceeds reward.max_response_tokens 24"),
    ],
)
def test_what_cannot_fit_is_refused_before_anything_starts(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(RecipeError, match=complaint):
        recipe_of(tmp_path, **changes)


REPOSITORY = Path(__file__).parents[2]
SHARED = REPOSITORY.parent / "shared" / "data"


def real_recipe() -> Recipe:
    path = REPOSITORY / "recipes" / "real.toml"
    return validate_recipe(Recipe, read_toml(path), source=str(path))


def test_the_shipped_recipe_names_nothing_outside_its_folder() -> None:
    files = real_recipe().files
    paths = [source.path for source in (*files.documents, *files.demonstrations, *files.preferences)]
    assert not [path for path in paths if Path(path).is_absolute() or ".." in Path(path).parts]
    assert not [path for path in paths if path.startswith(("eval/", "conditional/"))]


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")
def test_the_shipped_recipe_finds_its_files_and_can_read_them() -> None:
    material = FilesMaterial(real_recipe(), SHARED)
    assert len(material.fingerprint()) > 8
    assert next(iter(material.documents())).text
    assert len(material.demonstrations()) > 5_000
    labelers = {each.labeler for each in material.preferences.heldout}
    assert labelers == {source.labeler for source in material.recipe.files.preferences}
    assert len(material.prompts("evaluate", 1000)) > 200
