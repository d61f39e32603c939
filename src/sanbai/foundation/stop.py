"""Leaving in good order: SIGTERM and Ctrl-C become a flag that every loop reads between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from sanbai.foundation.errors import Interrupted


class StopSignal:
    """Set once when the process is asked to stop; loops save and leave at their next step.

    A second Ctrl-C interrupts at once, as people expect.
    """

    def __init__(self) -> None:
        self._event = threading.Event()

    def install(self) -> None:
        """Listen for SIGTERM and SIGINT; only the main thread may call this."""
        signal.signal(signal.SIGTERM, self._receive)
        signal.signal(signal.SIGINT, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._event.is_set():
            signal.default_int_handler(number, frame)
        self._event.set()

    @property
    def is_set(self) -> bool:
        """Whether a stop was asked for."""
        return self._event.is_set()

    def request(self) -> None:
        """Ask for a stop from inside the process."""
        self._event.set()

    def raise_if_set(self) -> None:
        """Leave where nothing needs saving.

        Raises:
            Interrupted: a stop was asked for.
        """
        if self.is_set:
            raise Interrupted("stopped; give the same command again to continue")
