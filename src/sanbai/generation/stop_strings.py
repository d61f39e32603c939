"""Texts that end an answer: what is shown never holds one, nor the beginning of what may become one."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Lets text through up to the first of several strings, holding back what may become one."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = [string for string in strings if string]
        self._held = ""
        self.found = False
        """Whether a stop string has come; nothing passes after it."""

    def push(self, text: str) -> str:
        """Return what can be shown now."""
        if self.found:
            return ""
        held = self._held + text
        places = [place for place in map(held.find, self._strings) if place >= 0]
        if places:
            self.found, self._held = True, ""
            return held[: min(places)]
        longest = max(map(len, self._strings), default=1) - 1
        keep = next((size for size in range(min(longest, len(held)), 0, -1) if self._may_begin(held[-size:])), 0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def finish(self) -> str:
        """Return what was held back and turned out to be plain text."""
        held, self._held = self._held, ""
        return held

    def _may_begin(self, text: str) -> bool:
        return any(string.startswith(text) for string in self._strings)
