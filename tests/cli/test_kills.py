"""Killed again and again, the quickstart comes to the same bits as undisturbed.

`SANBAI_KILLS=20 SANBAI_KILL_RECIPE=recipes/quickstart.toml` tries the real recipe twenty times; the default is small.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

NUM_KILLS = int(os.environ.get("SANBAI_KILLS", "6"))
RECIPE = os.environ.get("SANBAI_KILL_RECIPE", str(Path(__file__).parent / "smoke.toml"))
TIMES = frozenset({"started", "finished", "seconds", "machine"})
#: Files of a report that hold durations; its numbers are in `evaluation.json`.
WITH_TIMES = frozenset({"context.json", "report.html"})


def command(workspace: Path) -> list[str]:
    program = str(Path(sys.executable).parent / "sanbai")
    return [program, "quickstart", "--recipe", RECIPE, "--workspace", str(workspace), "--no-serve"]


def contents(workspace: Path) -> dict[str, Any]:
    """Everything below artifacts/, manifests without times."""
    found: dict[str, Any] = {}
    for path in sorted(workspace.glob("artifacts/[!.]*/**/*")):
        if not path.is_file() or path.name in WITH_TIMES:
            continue
        name = str(path.relative_to(workspace))
        if path.name == "manifest.json":
            manifest = json.loads(path.read_text())
            files = {key: value for key, value in manifest["files"].items() if key not in WITH_TIMES}
            found[name] = {key: value for key, value in manifest.items() if key not in TIMES} | {"files": files}
        else:
            found[name] = path.read_bytes()
    return found


@pytest.mark.long
def test_a_quickstart_killed_at_random_moments_ends_in_the_same_bits(tmp_path: Path) -> None:
    started = time.monotonic()
    subprocess.run(command(tmp_path / "whole"), check=True, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - started

    moments = random.Random(int(os.environ.get("SANBAI_KILL_SEED", "1")))
    killed = 0
    while killed < NUM_KILLS:
        with subprocess.Popen(command(tmp_path / "killed"), stderr=subprocess.DEVNULL) as process:
            try:
                process.wait(timeout=4 + moments.uniform(0, 2 * seconds / NUM_KILLS))
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                killed += 1
    subprocess.run(command(tmp_path / "killed"), check=True, stderr=subprocess.DEVNULL)
    print(f"{killed} kills over {seconds:.0f} s")

    whole, disturbed = contents(tmp_path / "whole"), contents(tmp_path / "killed")
    assert killed >= min(NUM_KILLS, 3)
    assert sorted(whole) == sorted(disturbed)
    assert [name for name in whole if whole[name] != disturbed[name]] == []


def test_sigterm_saves_and_leaves_with_zero_within_ten_seconds(tmp_path: Path) -> None:
    with subprocess.Popen(command(tmp_path), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(("shards done", "pretrain")):
                break
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
        assert process.wait(timeout=60) == 0
    assert "give the same command again to continue" in said.splitlines()[-1]
