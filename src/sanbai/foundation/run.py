"""A run: one execution of a stage, with its log, metrics and checkpoints, so that a killed one continues.

Checkpoints are safetensors files whose header carries the plain state as JSON; nothing is ever unpickled.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import safetensors
from tensorboardX.writer import SummaryWriter
from torch import Tensor

from sanbai.foundation.errors import Interrupted
from sanbai.foundation.files import explain_disk_errors, read_json, read_jsonl, write_atomic, write_json_atomic
from sanbai.foundation.lock import is_held
from sanbai.foundation.progress import TaskProgress
from sanbai.foundation.stop import StopSignal
from sanbai.foundation.tensor_file import save_tensors

NUM_CHECKPOINTS_KEPT = 2
LOCK = "lock"
"""File of a run's folder, locked while a process works on it."""


class Run:
    """The folder `runs/<artifact name>/`: `run.json`, `log.jsonl`, `metrics.jsonl`, `tensorboard/`, `checkpoints/`."""

    def __init__(self, folder: Path, progress: TaskProgress, stop: StopSignal) -> None:
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self._progress = progress
        self._stop = stop
        with explain_disk_errors(folder):
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self._log: IO[str] = (folder / "log.jsonl").open("a", encoding="utf-8")
            self._metrics: IO[str] = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._tensorboard = SummaryWriter(str(folder / "tensorboard"))

    def event(self, name: str, **fields: object) -> None:
        """Append one event to the log; fields are numbers and names, never the text of a message."""
        self._log.write(json.dumps({"time": round(time.time(), 3), "event": name, **fields}) + "\n")
        self._log.flush()

    def record(self, step: int, **metrics: float) -> None:
        """Append one row of metrics, to the JSON Lines file, to TensorBoard and to the progress view."""
        with explain_disk_errors(self.folder):
            self._metrics.write(json.dumps({"step": step, **metrics}) + "\n")
            self._metrics.flush()
        for name, value in metrics.items():
            self._tensorboard.add_scalar(name, value, step)
        self._progress.advance(step, **metrics)

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Save a checkpoint atomically and drop all but the newest two.

        Args:
            step: steps done so far.
            tensors: weights, optimizer state, random states.
            state: counters and cursors, JSON values.
        """
        path = self.checkpoints / f"step-{step:08d}.safetensors"
        save_tensors(path, tensors, metadata={"state": json.dumps(dict(state))})
        for old in sorted(self.checkpoints.glob("step-*.safetensors"))[:-NUM_CHECKPOINTS_KEPT]:
            old.unlink()
        self.event("checkpoint", step=step)

    def load(self) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """Return (step, tensors, state) of the newest readable checkpoint, or None at the first start.

        Metrics recorded after that step are dropped: the steps are about to be done again.
        """
        for path in sorted(self.checkpoints.glob("step-*.safetensors"), reverse=True):
            try:
                with safetensors.safe_open(path, framework="pt") as file:
                    state = json.loads(file.metadata()["state"])
                    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            except safetensors.SafetensorError as error:
                self.event("checkpoint.damaged", file=path.name, error=str(error))
                continue
            step = int(path.stem.removeprefix("step-"))
            self._drop_metrics_after(step)
            self.event("resume", step=step)
            return step, tensors, state
        self._drop_metrics_after(-1)
        return None

    def _drop_metrics_after(self, step: int) -> None:
        path = self.folder / "metrics.jsonl"
        self._metrics.close()
        lines = path.read_text(encoding="utf-8").splitlines()
        whole = [line for line in lines if line.endswith("}")]  # a kill may have cut the last line
        kept = [line for line in whole if json.loads(line)["step"] <= step]
        if kept != lines:
            write_atomic(path, "".join(line + "\n" for line in kept))
        self._metrics = path.open("a", encoding="utf-8")

    @property
    def stop_requested(self) -> bool:
        """Whether the process was asked to stop; a loop then saves and calls `raise_if_stopping`."""
        return self._stop.is_set

    def raise_if_stopping(self) -> None:
        """Leave the stage after its state was saved.

        Raises:
            Interrupted: a stop was asked for.
        """
        if self._stop.is_set:
            raise Interrupted(f"{self.folder.name}: stopped; give the same command again to continue")

    def close(self) -> None:
        """Flush and close the files."""
        self._log.close()
        self._metrics.close()
        self._tensorboard.close()  # type: ignore[no-untyped-call]


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Return the rows of a run's `metrics.jsonl`, or none where the run recorded nothing."""
    path = folder / "metrics.jsonl"
    return list(read_jsonl(path)) if path.exists() else []


def read_run(folder: Path) -> dict[str, Any]:
    """Return `run.json`: stage, state, seconds so far, artifact.

    States are running, stopped, failed, done, and killed: the process ended without a word; the same command goes on.
    """
    known: dict[str, Any] = read_json(folder / "run.json")
    if known["state"] == "running" and not is_held(folder / LOCK):
        known["state"] = "killed"
    return known


class Clock:
    """Working time of a run, summed over its continuations and kept in `run.json`.

    Attributes:
        started: when the run began for the first time.
    """

    def __init__(self, folder: Path, stage: str) -> None:
        """Go on from where an earlier execution stopped; the folder exists."""
        self._path = folder / "run.json"
        known = read_run(folder) if self._path.exists() else {}
        self._before = float(known.get("seconds", 0.0))
        self.started = str(known.get("started", time_stamp()))
        self._since = time.monotonic()
        self._known = {**known, "stage": stage, "started": self.started}
        self._write(state="running", seconds=self._before)

    def seconds(self) -> float:
        """Return the seconds worked so far."""
        return self._before + time.monotonic() - self._since

    def stop(self, state: str, **fields: object) -> None:
        """Write down how the run ended: stopped, failed or done."""
        self._write(state=state, seconds=round(self.seconds(), 3), **fields)

    def _write(self, **fields: object) -> None:
        write_json_atomic(self._path, {**self._known, **fields})


def time_stamp() -> str:
    """Return the time, UTC, to the second."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
