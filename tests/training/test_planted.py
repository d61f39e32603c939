"""Tests of the tests: every trap, planted on purpose in a copy of the source, is caught by the test named for it."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.training.planted import FAULTS, PACKAGE, ROOT, Fault, with_table

PAGE = ROOT / "docs/stages/ppo.md"


def run_test(test: str, source: Path) -> subprocess.CompletedProcess[str]:
    """Run one test in a process of its own against the package in `source`."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(source), str(ROOT)]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_can_still_be_planted_and_its_test_exists(fault: Fault) -> None:
    source = (PACKAGE / fault.file).read_text("utf-8")
    assert source.count(fault.old) == 1
    ast.parse(source.replace(fault.old, fault.new))
    path, _, name = fault.test.partition("::")
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_trap_has_a_fault_and_a_test_of_its_number() -> None:
    assert {fault.trap for fault in FAULTS} == set(range(1, 29))
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    numbered = {
        int(node.name[10:12])
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_trap_")
    }
    assert numbered == set(range(1, 29))


def test_the_pages_table_is_the_list() -> None:
    page = PAGE.read_text("utf-8")
    assert page == with_table(page), "the list of planted faults has changed: run `make traps`"


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_caught(fault: Fault, tmp_path: Path) -> None:
    package = tmp_path / "sanbai"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    fault.plant(package)
    finished = run_test(fault.test, tmp_path)
    # 1 is pytest's code for tests that ran and failed: an import that breaks would be another.
    assert finished.returncode == 1, finished.stdout[-2000:] + finished.stderr[-2000:]
    assert "1 failed" in finished.stdout


@pytest.mark.long
def test_unplanted_the_same_tests_pass(tmp_path: Path) -> None:
    package = tmp_path / "sanbai"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    for test in sorted({fault.test for fault in FAULTS}):
        assert run_test(test, tmp_path).returncode == 0, test
