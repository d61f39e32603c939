"""Stages: whole or absent, found again, continued after a kill."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.device import Compute
from sanbai.foundation.errors import ArtifactError, Interrupted, ResourceError, UnknownNameError
from sanbai.foundation.progress import SilentProgress
from sanbai.foundation.run import read_metrics, read_run
from sanbai.foundation.stage import Job, Stage, run_stage
from sanbai.foundation.stop import StopSignal
from sanbai.foundation.workspace import Workspace


@pytest.fixture
def job(tmp_path: Path) -> Job:
    workspace = Workspace(tmp_path / "workspace")
    workspace.create()
    return Job(workspace, SilentProgress(), StopSignal())


def make(
    job: Job,
    build: Callable[[Stage], Mapping[str, Any]],
    *,
    seed: int = 1,
    compute: Compute | None = None,
    **parents: Artifact,
) -> Artifact:
    return run_stage(
        job,
        kind="model",
        name="count",
        recipe={"compute": compute or Compute()},
        parents=parents,
        seed=seed,
        floor="training",
        num_steps=6,
        build=build,
    )


def count_to_six(stage: Stage, *, fail_at: int = -1) -> dict[str, float]:
    """Sum 0..5, a step at a time, saving after each."""
    saved = stage.run.load()
    step, total = (saved[0], saved[1]["total"]) if saved else (0, torch.zeros((), dtype=torch.int64))
    while step < 6:
        if step == fail_at:
            raise RuntimeError("pulled the plug")
        total = total + step
        step += 1
        stage.run.record(step, total=float(total))
        stage.run.save(step, {"total": total}, {"step": step})
        stage.run.raise_if_stopping()
    (stage.folder / "total.txt").write_text(str(int(total)))
    return {"total": float(total)}


def test_the_same_request_returns_the_same_artifact_without_work(job: Job) -> None:
    first = make(job, count_to_six)
    second = make(job, lambda stage: pytest.fail("worked again"))
    assert first.name == second.name
    assert first.file("total.txt").read_text() == "15"
    assert first.metrics == {"total": 15.0}


def test_the_number_of_threads_changes_no_name_but_the_precision_does(job: Job) -> None:
    first = make(job, count_to_six, compute=Compute(num_threads=1))
    again = make(job, lambda stage: pytest.fail("worked again"), compute=Compute(num_threads=3))
    other = make(job, count_to_six, compute=Compute(precision="float32"))
    assert first.name == again.name
    assert first.name != other.name


def test_seed_and_parents_change_the_name(job: Job) -> None:
    base = make(job, count_to_six)
    assert len({base.name, make(job, count_to_six, seed=2).name, make(job, count_to_six, base=base).name}) == 3


def test_a_failed_stage_leaves_nothing_and_continues_where_it_was(job: Job) -> None:
    with pytest.raises(RuntimeError):
        make(job, lambda stage: count_to_six(stage, fail_at=4))
    assert list(job.workspace.artifacts.iterdir()) == []
    done: list[int] = []

    def continued(stage: Stage) -> dict[str, float]:
        saved = stage.run.load()
        assert saved is not None
        done.append(saved[0])
        return count_to_six(stage)

    artifact = make(job, continued)
    assert done == [4]
    assert artifact.file("total.txt").read_text() == "15"
    rows = read_metrics(job.workspace.runs / artifact.name)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert read_run(job.workspace.runs / artifact.name)["state"] == "done"


def test_metrics_after_the_last_checkpoint_are_dropped_on_resume(job: Job) -> None:
    def runs_ahead(stage: Stage) -> dict[str, float]:
        stage.run.save(1, {"total": torch.zeros((), dtype=torch.int64)}, {})
        for step in (1, 2, 3):
            stage.run.record(step, total=-1.0)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        make(job, runs_ahead)
    artifact = make(job, count_to_six)
    rows = read_metrics(job.workspace.runs / artifact.name)
    assert [(row["step"], row["total"]) for row in rows[:3]] == [(1, -1.0), (2, 1.0), (3, 3.0)]


def test_a_damaged_checkpoint_gives_way_to_the_one_before(job: Job) -> None:
    with pytest.raises(RuntimeError):
        make(job, lambda stage: count_to_six(stage, fail_at=4))
    newest = max(job.workspace.runs.rglob("step-*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:40])
    steps: list[int] = []

    def note(stage: Stage) -> dict[str, float]:
        saved = stage.run.load()
        assert saved is not None
        steps.append(saved[0])
        return count_to_six(stage)

    assert make(job, note).file("total.txt").read_text() == "15"
    assert steps == [3]


def test_a_stop_request_saves_and_exits_with_zero(job: Job) -> None:
    job.stop.request()
    with pytest.raises(Interrupted, match="give the same command again") as caught:
        make(job, count_to_six)
    assert caught.value.exit_code == 0


@pytest.mark.parametrize("damage", ["alter", "cut", "remove"])
def test_a_damaged_artifact_is_refused_with_the_next_step(job: Job, damage: str) -> None:
    path = make(job, count_to_six).path / "total.txt"
    if damage == "alter":
        path.write_text("16")
    elif damage == "cut":
        path.write_text("1")
    else:
        path.unlink()
    # another process: the check is remembered within one
    script = (
        "import sys; from pathlib import Path; from sanbai.foundation.artifacts import load_artifact\n"
        "from sanbai.foundation.errors import ArtifactError\n"
        "try: load_artifact(Path(sys.argv[1])).verify()\n"
        "except ArtifactError as error: print(error)"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, path.parent], capture_output=True, text=True, check=True
    ).stdout
    expected = {"alter": "but the manifest says", "cut": "1 bytes, but the manifest says 2", "remove": "is missing"}
    assert expected[damage] in said
    assert "give the command again" in said


def test_two_processes_do_not_make_the_same_artifact_at_once(job: Job) -> None:
    inside, release = threading.Event(), threading.Event()

    def slow(stage: Stage) -> dict[str, float]:
        inside.set()
        assert release.wait(30)
        return count_to_six(stage)

    worker = threading.Thread(target=make, args=(job, slow))
    worker.start()
    assert inside.wait(30)
    with pytest.raises(ResourceError, match="another process is making it"):
        make(job, count_to_six)
    (run,) = job.workspace.runs.iterdir()
    assert read_run(run)["state"] == "running"
    release.set()
    worker.join()


def test_an_artifact_that_lost_its_manifest_is_refused_before_any_work(job: Job) -> None:
    (make(job, count_to_six).path / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=r"not an artifact: .* delete .* and give the command again"):
        make(job, lambda stage: pytest.fail("worked for nothing"))


def test_a_file_in_a_folder_of_the_artifact_is_kept_and_checked(job: Job) -> None:
    def draw(stage: Stage) -> dict[str, float]:
        (stage.folder / "plots").mkdir()
        (stage.folder / "plots" / "loss.svg").write_text("<svg/>")
        return count_to_six(stage)

    assert make(job, draw).file("plots/loss.svg").read_text() == "<svg/>"


def test_the_clock_of_a_run_sums_its_executions(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count(100.0, 7.0)  # every look at the clock finds seven seconds gone
    clock = SimpleNamespace(monotonic=lambda: next(ticks), time=time.time)
    monkeypatch.setattr("sanbai.foundation.run.time", clock)
    with pytest.raises(RuntimeError):
        make(job, lambda stage: count_to_six(stage, fail_at=4))
    (folder,) = job.workspace.runs.iterdir()
    before = read_run(folder)
    assert before["state"] == "failed"
    make(job, count_to_six)
    after = read_run(folder)
    assert before["seconds"] == 7.0  # looked at when it began and when it failed
    assert after["seconds"] == 7.0 + 2 * 7.0  # and again when it began, for the manifest, and when it was done
    assert after["started"] == before["started"]


def test_a_folder_without_a_manifest_is_no_artifact(job: Job) -> None:
    (job.workspace.artifacts / "model-000000000000").mkdir()
    with pytest.raises(ArtifactError, match="not an artifact"):
        job.workspace.load("model-000000000000")
    with pytest.raises(UnknownNameError, match="no such artifact"):
        job.workspace.load("model-1")


def test_a_killed_process_leaves_no_artifact_and_the_next_one_continues(job: Job, tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(
        "import os, signal, sys\nfrom pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_stage import Job, SilentProgress, StopSignal, Workspace, count_to_six, make\n"
        "def die(stage):\n"
        "    record = stage.run.record\n"
        "    def kill_at_three(step, **numbers):\n"
        "        record(step, **numbers)\n"
        "        if step == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    stage.run.record = kill_at_three\n"
        "    return count_to_six(stage)\n"
        "make(Job(Workspace(Path(sys.argv[1])), SilentProgress(), StopSignal()), die)\n"
    )
    killed = subprocess.run([sys.executable, script, job.workspace.root], env=dict(os.environ), check=False)
    assert killed.returncode == -signal.SIGKILL
    assert job.workspace.list() == []
    (run,) = job.workspace.runs.iterdir()
    assert read_run(run)["state"] == "killed"
    assert make(job, count_to_six).file("total.txt").read_text() == "15"
    assert read_run(run)["state"] == "done"
