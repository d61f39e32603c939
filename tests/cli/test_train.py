"""`sanbai train` on people's own files, as it is typed: what learns from comparisons finds them there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.rounds.test_practice import RECIPE, write_files

from sanbai.cli.train import check_practice, make_model
from sanbai.feedback.accounts import add_account
from sanbai.feedback.consent import set_consent
from sanbai.feedback.conversations import add_message, open_conversation
from sanbai.feedback.generations import Ending, Plan, begin_generations, end_generation
from sanbai.feedback.reactions import Thumb, add_thumb
from sanbai.feedback.registry import find_model
from sanbai.feedback.snapshots import models_touched_by
from sanbai.feedback.store import Store
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.device import apply_compute
from sanbai.foundation.errors import UsageError
from sanbai.foundation.progress import SilentProgress
from sanbai.foundation.recipe import read_toml, validate_recipe
from sanbai.foundation.stage import Job
from sanbai.foundation.stop import StopSignal
from sanbai.foundation.workspace import Workspace
from sanbai.rounds.material import FilesMaterial
from sanbai.rounds.pipeline import Pipeline
from sanbai.rounds.recipe import Recipe

PROGRAM = str(Path(sys.executable).parent / "sanbai")
PRACTICE = """
[group]
num_iterations = 2
batch_prompts = 4
minibatch_prompts = 4
num_answers = 3
max_new_tokens = 8
ptx_ratio = 0.2
ptx_row_length = 32
ptx_coef = 1.0
judge_iterations = 1

[expert_iteration]
num_iterations = 2
batch_prompts = 4
minibatch_prompts = 4
num_answers = 3
max_new_tokens = 8
ptx_ratio = 0.2
ptx_row_length = 32
ptx_coef = 1.0
judge_iterations = 1

[direct]
num_epochs = 3
batch_prompts = 8
learning_rate = 1e-2
warmup_steps = 1
validation_share = 0.2
max_prompt_tokens = 32
max_response_tokens = 24

[reject]
num_prompts = 40
num_answers = 8
max_new_tokens = 24

[reject.supervise]
num_epochs = 1
row_length = 48
batch_rows = 4
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files, a recipe on them, and the workspace that the tests share."""
    folder = tmp_path_factory.mktemp("files")
    write_files(folder)
    (folder / "own.toml").write_text(RECIPE + PRACTICE)
    return folder


def train(folder: Path, stage: str, *options: str, recipe: str = "own.toml") -> tuple[int, str, str]:
    command = [PROGRAM, "train", stage, str(folder / recipe), "--data", str(folder), *options]
    ended = subprocess.run(
        [*command, "--workspace", str(folder / "workspace")], capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stdout, ended.stderr


def manifest(folder: Path, artifact: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads((folder / "workspace" / "artifacts" / artifact / "manifest.json").read_text())
    return parsed


@pytest.mark.parametrize("stage", ["group", "expert-iteration"])
def test_a_policy_practises_against_judges_of_the_files_comparisons(folder: Path, stage: str) -> None:
    code, out, talk = train(folder, stage, "--json")
    assert code == 0, talk
    made = json.loads(out.splitlines()[-1])
    assert made["metrics"]["iterations"] == 2
    parents = manifest(folder, made["artifact"])["parents"]
    assert manifest(folder, parents["start"])["stage"] == "supervise"
    assert [manifest(folder, parents[role])["stage"] for role in ("reward", "judge")] == ["reward", "judge"]


def test_answers_longer_than_the_reward_model_reads_are_refused_before_any_work(folder: Path) -> None:
    (folder / "long.toml").write_text(RECIPE + PRACTICE.replace("max_new_tokens = 8", "max_new_tokens = 80", 1))
    code, _, talk = train(folder, "group", recipe="long.toml")
    assert code == 2
    assert "group.max_new_tokens 80 exceeds reward.max_response_tokens 24" in talk.splitlines()[-1]


@pytest.mark.parametrize(
    ("stage", "section"), [("reject", "reject"), ("group", "group"), ("expert-iteration", "expert_iteration")]
)
def test_answers_that_leave_no_room_for_a_prompt_are_refused_before_any_work(
    folder: Path, tmp_path: Path, stage: str, section: str
) -> None:
    """On the world too, where nothing else bounds them: 640 tokens beside a context of 128."""
    recipe = validate_recipe(Recipe, read_toml(folder / "own.toml"), source="own.toml")
    long = getattr(recipe, section).model_copy(update={"max_new_tokens": 640})
    reads = recipe.reward.model_copy(update={"max_response_tokens": 640})
    recipe = recipe.model_copy(update={section: long, "reward": reads})
    assert recipe.model.max_positions == 128
    judges = (Artifact(tmp_path / "reward", {}), Artifact(tmp_path / "judge", {}))
    with pytest.raises(UsageError) as refused:
        check_practice(recipe, stage, judges, None)
    assert str(refused.value) == (
        f"{section}.max_new_tokens 640 leaves 0 of the model's 128 positions to a prompt, which takes 5 or more; "
        "lower it, or take a model with a longer context"
    )


def test_a_model_to_start_from_whose_context_is_too_short_for_the_answers_is_refused(folder: Path) -> None:
    short = RECIPE.replace("max_positions = 128", "max_positions = 24").replace("row_length = 32", "row_length = 16")
    short = short.replace("max_prompt_tokens = 32", "max_prompt_tokens = 8")
    short = short.replace("max_response_tokens = 24", "max_response_tokens = 8")
    (folder / "short.toml").write_text(short)
    code, _, talk = train(folder, "pretrain", "--name", "short", recipe="short.toml")
    assert code == 0, talk
    before = {path.name for path in (folder / "workspace" / "artifacts").iterdir()}
    code, _, talk = train(folder, "reject", "--start", "short")
    assert code == 2
    assert "reject.max_new_tokens 24 leaves 0 of the model's 24 positions to a prompt" in talk.splitlines()[-1]
    assert {path.name for path in (folder / "workspace" / "artifacts").iterdir()} == before


def test_comparisons_that_say_nothing_of_single_answers_teach_no_judge(folder: Path) -> None:
    code, _, talk = train(folder, "self-judge")
    assert code == 1
    assert "says more of an answer than its rank; rate at /label" in talk.splitlines()[-1]


def test_direct_fits_the_files_preferences_and_its_lineage_names_them(folder: Path) -> None:
    code, out, talk = train(folder, "direct", "--json", "--name", "mine")
    assert code == 0, talk
    made = json.loads(out.splitlines()[-1])
    assert made["metrics"]["validation_accuracy"] == 1.0
    assert made["metrics"]["kl"] > 0
    parents = manifest(folder, made["artifact"])["parents"]
    assert manifest(folder, parents["start"])["stage"] == "supervise"
    registered = find_model(Store(Workspace(folder / "workspace").database_url), "mine")
    assert registered.kind == "policy"
    assert registered.snapshots == (parents["snapshot"],)


def test_direct_learns_as_an_adapter_over_the_model_that_it_starts_from(folder: Path) -> None:
    (folder / "lora.toml").write_text(RECIPE + PRACTICE + '\n[adapter]\nmethod = "lora"\n')
    code, out, talk = train(folder, "direct", "--json", recipe="lora.toml")
    assert code == 0, talk
    made = json.loads(out.splitlines()[-1])
    start = manifest(folder, made["artifact"])["parents"]["start"]
    written = folder / "workspace" / "artifacts" / made["artifact"]
    settings = json.loads((written / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == start
    assert made["metrics"]["adapter_parameters"] > 0
    assert (written / "model.safetensors").exists()
    (folder / "prefix.toml").write_text(RECIPE + PRACTICE + '\n[adapter]\nmethod = "prefix"\n')
    code, _, talk = train(folder, "direct", "--start", start, recipe="prefix.toml")
    assert code == 2
    assert "adapter.method prefix changes a model before it has learned" in talk.splitlines()[-1]


def test_direct_learns_from_the_workspaces_thumbs_and_its_lineage_names_them(folder: Path) -> None:
    kto = PRACTICE.replace("[direct]\n", '[direct]\nmethod = "kto"\nlearn_from = "thumbs"\n')
    (folder / "thumbs.toml").write_text(RECIPE + kto)
    code, _, talk = train(folder, "direct", recipe="thumbs.toml")
    assert code == 2
    assert "none of 0 thumbs may be learned from; let people who agree to it give thumbs" in talk.splitlines()[-1]

    store = Store(Workspace(folder / "workspace").database_url)
    store.create()
    ada = add_account(store, "ada", "user")
    set_consent(store, ada, granted=True)
    for number in range(12):
        place = open_conversation(store, ada)
        asked = add_message(store, ada, place, content=f"{number}: who bakes?")
        (answer,) = begin_generations(store, asked, [Plan("mine", {}, number, 4)])
        end_generation(store, answer, f"answer {number % 3}", Ending("done", "stop", 3, 0.1))
        add_thumb(store, ada, answer.message_id, Thumb(1 if number % 3 else -1))
    code, out, talk = train(folder, "direct", "--json", "--name", "by-thumbs", recipe="thumbs.toml")
    assert code == 0, talk
    made = json.loads(out.splitlines()[-1])
    assert made["metrics"]["num_thumbs_up"] + made["metrics"]["num_thumbs_down"] == made["metrics"]["num_prompts"] > 0
    parents = manifest(folder, made["artifact"])["parents"]
    assert parents.keys() == {"start", "thumbs"}
    assert find_model(store, "by-thumbs").snapshots == (parents["thumbs"],)
    assert models_touched_by(store, ada.id) == ["by-thumbs"]

    (folder / "both.toml").write_text(RECIPE + kto.replace('"thumbs"', '"both"'))
    code, out, talk = train(folder, "direct", "--json", recipe="both.toml")
    assert code == 0, talk
    made = json.loads(out.splitlines()[-1])
    assert manifest(folder, made["artifact"])["parents"].keys() == {"start", "snapshot", "thumbs"}
    assert made["metrics"]["num_prompts"] > made["metrics"]["num_thumbs_up"] > 0


def make(folder: Path, recipe: str) -> Artifact:
    """Run `reject` in this process."""
    (folder / "other.toml").write_text(recipe)
    resolved = validate_recipe(Recipe, read_toml(folder / "other.toml"), source="other.toml")
    workspace = Workspace(folder / "workspace")
    workspace.create()
    apply_compute(resolved.compute)
    job = Job(workspace, SilentProgress(), StopSignal())
    pipeline = Pipeline(job, resolved, FilesMaterial(resolved, folder))
    return make_model(pipeline, "reject", Store(workspace.database_url), None)


def test_reject_imitates_the_answers_that_the_reward_model_likes_best(folder: Path) -> None:
    policy = make(folder, RECIPE + PRACTICE)
    best = manifest(folder, policy.manifest["parents"]["demonstrations"])
    assert 0 < policy.metrics["demonstrations"] <= best["metrics"]["demonstrations"]  # those that fit a row
    assert best["metrics"]["reward_by_num"]["8"] > best["metrics"]["reward_by_num"]["1"]
    assert {role: manifest(folder, name)["stage"] for role, name in best["parents"].items()} == {
        "policy": "supervise",
        "reward": "reward",
        "judge": "judge",
    }
    assert policy.manifest["parents"]["base"] == best["parents"]["policy"]

    fewer = make(folder, RECIPE + PRACTICE.replace("num_prompts = 40", "num_prompts = 20"))
    assert manifest(folder, fewer.manifest["parents"]["demonstrations"])["metrics"]["demonstrations"] <= 20
    longer = make(folder, RECIPE + PRACTICE.replace("num_epochs = 1\nrow_length", "num_epochs = 2\nrow_length"))
    assert longer.metrics["steps"] > policy.metrics["steps"]
    # How they are imitated changes no answer: they are not drawn again.
    assert longer.manifest["parents"]["demonstrations"] == policy.manifest["parents"]["demonstrations"]
