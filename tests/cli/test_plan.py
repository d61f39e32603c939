"""`sanbai plan` as a person meets it."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).parent / "sanbai"
RECIPE = Path(__file__).parents[2] / "recipes" / "quickstart.toml"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, "plan", *map(str, arguments)], capture_output=True, text=True, check=False)


def test_a_preset_gives_a_table_and_one_record() -> None:
    shown = run("gpt2", "--count", 4, "--accelerator", "h100", "--json")
    assert shown.returncode == 0, shown.stderr
    *table, last = shown.stdout.splitlines()
    record = json.loads(last)
    assert record["parameters"]["total"] == 124_439_808
    assert record["request"]["tokens"] == 20 * 124_439_808
    assert set(record["fitting"]) == set(record["training"])
    assert any("4 x NVIDIA H100" in line for line in table)


def test_a_recipe_says_itself_how_much_it_trains_on() -> None:
    record = json.loads(run("quickstart", "--json").stdout.splitlines()[-1])
    pretrain = tomllib.loads(RECIPE.read_text())["pretrain"]
    assert record["request"]["tokens"] == pretrain["num_steps"] * pretrain["batch_rows"] * pretrain["row_length"]
    assert record["request"]["length"] == pretrain["row_length"]
    assert record["trains_here"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("nothing",), "nothing: no such recipe"),
        (("gpt2", "--accelerator", "abacus"), "abacus: no such accelerator; known: v100"),
        (("gpt2", "--utilisation", 0), "0"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_one_line(arguments: tuple[object, ...], complaint: str) -> None:
    shown = run(*arguments)
    assert shown.returncode == 2
    assert complaint in shown.stderr
    assert "Traceback" not in shown.stderr
