"""Two programs that take turns, an iteration each, so that a busy machine slows both alike.

The one that measures writes an empty line; the worker works until its iteration is done, answers with one line of JSON
and waits. Standard library only: a peer's script imports this in an environment that has no `sanbai`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


class Turns:
    """A worker's end: standard input and output; what else the process prints goes to standard error."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._began: tuple[float, float] | None = None

    def wait(self) -> None:
        """End the turn that is running, if one is, and wait for the next.

        Raises:
            SystemExit: there is none.
        """
        if self._began is not None:
            wall, process = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
            print(
                json.dumps({"wall": wall, "process": process, "peak_bytes": peak_bytes()}),
                file=self._answers,
                flush=True,
            )
        if not sys.stdin.readline():
            raise SystemExit
        self._began = time.perf_counter(), time.process_time()


def peak_bytes() -> int:
    """Return the most memory that this process has held, in bytes; Linux only."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


class Worker:
    """A program that takes turns."""

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        """Start it; it prepares itself, and waits.

        Args:
            command: program and arguments.
            environment: added to this process's own.
        """
        self._process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
            text=True,
        )

    def turn(self) -> dict[str, float]:
        """Let it work for one turn; return its seconds of wall and process time, and its peak memory so far in bytes.

        Raises:
            RuntimeError: it ended without an answer.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args}: ended with {self._process.wait()}; its messages stand above")
        answer: dict[str, float] = json.loads(line)
        return answer

    def close(self) -> None:
        """Tell it that there are no more turns, and wait for its end."""
        self._process.communicate()
