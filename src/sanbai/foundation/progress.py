"""One view of the work: bars with rate and time left on a terminal, a plain line an event elsewhere.

Talk goes to standard error; standard output belongs to results.
"""

from __future__ import annotations

import sys
import time
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

PLAIN_INTERVAL_SECONDS = 10.0


class TaskProgress(Protocol):
    """One stage's bar."""

    def advance(self, step: int, **numbers: float) -> None:
        """Say that `step` of the total is reached, with the latest numbers (loss, reward, ...)."""

    def finish(self) -> None:
        """Say that the stage is done."""


class Progress(Protocol):
    """The view of a whole command."""

    def task(self, name: str, total: int) -> TaskProgress:
        """Open a bar for the stage `name` of `total` steps."""

    def say(self, line: str) -> None:
        """Print one line above the bars."""

    def close(self) -> None:
        """Put the terminal back."""


def open_progress() -> Progress:
    """Return bars where standard error is a terminal, plain lines where it is not."""
    return BarProgress() if sys.stderr.isatty() else LineProgress()


def _format(numbers: dict[str, float]) -> str:
    return " ".join(
        f"{name}={value:.0f}" if float(value).is_integer() else f"{name}={value:.4g}" for name, value in numbers.items()
    )


class SilentProgress:
    """Says nothing; for tests and libraries."""

    def task(self, name: str, total: int) -> TaskProgress:  # noqa: ARG002 - the protocol's names
        """Return a bar that says nothing."""
        return _SilentTask()

    def say(self, line: str) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Do nothing."""


class _SilentTask:
    def advance(self, step: int, **numbers: float) -> None:
        pass

    def finish(self) -> None:
        pass


class LineProgress:
    """A plain line when a stage starts, every ten seconds, and when it ends."""

    def task(self, name: str, total: int) -> TaskProgress:
        """Say that a stage starts."""
        self.say(f"{name} start steps={total}")
        return _LineTask(self, name, total)

    def say(self, line: str) -> None:
        """Print one line to standard error."""
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is the plain log

    def close(self) -> None:
        """Do nothing: lines need no clean-up."""


class _LineTask:
    def __init__(self, view: LineProgress, name: str, total: int) -> None:
        self._view, self._name, self._total = view, name, total
        self._started = self._spoke = time.monotonic()
        self._first_step: int | None = None

    def advance(self, step: int, **numbers: float) -> None:
        if self._first_step is None:
            self._first_step = step
        now = time.monotonic()
        if now - self._spoke < PLAIN_INTERVAL_SECONDS:
            return
        self._spoke = now
        line = f"{self._name} step={step}/{self._total}"
        if (done := step - self._first_step) > 0:
            rate = done / (now - self._started)
            line += f" speed={rate:.3g}/s left={(self._total - step) / rate:.0f}s"
        self._view.say(f"{line} {_format(numbers)}".rstrip())

    def finish(self) -> None:
        self._view.say(f"{self._name} done seconds={time.monotonic() - self._started:.1f}")


class BarProgress:
    """Rich's live bars: stage, bar, steps, elapsed, left, latest numbers."""

    def __init__(self) -> None:
        self._rich = RichProgress(
            TextColumn("[bold]{task.description:<22}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("[cyan]{task.fields[rate]:>9}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[green]{task.fields[numbers]}"),
            console=Console(stderr=True),
        )
        self._rich.start()

    def task(self, name: str, total: int) -> TaskProgress:
        """Open a bar."""
        return _BarTask(self._rich, self._rich.add_task(name, total=total, numbers="", rate=""))

    def say(self, line: str) -> None:
        """Print one line above the bars."""
        self._rich.console.print(line, highlight=False)

    def close(self) -> None:
        """Stop the live view."""
        self._rich.stop()


class _BarTask:
    def __init__(self, rich: RichProgress, task: TaskID) -> None:
        self._rich, self._task = rich, task
        self._started = time.monotonic()
        self._first_step: int | None = None

    def advance(self, step: int, **numbers: float) -> None:
        if self._first_step is None:
            self._first_step = step
        seconds = time.monotonic() - self._started
        rate = f"{(step - self._first_step) / seconds:.3g}/s" if seconds > 0 else ""
        self._rich.update(self._task, completed=step, rate=rate, numbers=_format(numbers))

    def finish(self) -> None:
        total = self._rich.tasks[self._task].total or 0
        self._rich.update(self._task, completed=total)
