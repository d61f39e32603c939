"""`sanbai train` on people's own files, as it is typed: what practises learns its judges from their comparisons."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.rounds.test_practice import RECIPE, write_files

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


def test_comparisons_that_say_nothing_of_single_answers_teach_no_judge(folder: Path) -> None:
    code, _, talk = train(folder, "self-judge")
    assert code == 1
    assert "says more of an answer than its rank; rate at /label" in talk.splitlines()[-1]
