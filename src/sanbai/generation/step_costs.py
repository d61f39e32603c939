"""What a step of the engine costs, learnt from the steps themselves.

    seconds = a + c rows + g guessing rows + b guesses

by least squares of the relative error, so that a step that the machine's other work held up counts for little, and
with a memory that fades, so that texts may grow longer and neighbours come and go.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

KEPT = 0.98
"""Of what is known, in each step: about fifty steps count."""
STIFFNESS = 1e-3
"""How much the first guess weighs beside one step; it decides alone where nothing has been seen."""
FIRST_GUESS = (0.5, 0.5, 0.1, 0.05)
"""The four numbers in units of the quickest first step's seconds, c for its rows together."""
AT_ONCE = 8
"""Steps that are learnt from together, four times as many where nothing is guessed: solving takes longer than noting,
and small models' steps are short."""


class StepCosts:
    """The four numbers; a live resource of one engine."""

    def __init__(self) -> None:
        """Begin knowing nothing."""
        self.num_seen = 0
        self._quickest = 0.0
        self._noted: list[tuple[float, float, float, float]] = []
        self._first: npt.NDArray[np.float64] = np.zeros(4)
        self._square: npt.NDArray[np.float64] = np.zeros((4, 4))
        self._sum: npt.NDArray[np.float64] = np.zeros(4)
        self._a = self._c = self._g = self._b = 0.0

    def see(self, *, rows: int, guessing: int, guesses: int, seconds: float) -> None:
        """Learn from one step that read nothing but these."""
        if seconds <= 0:
            return
        if self.num_seen == 0 or (self.num_seen < AT_ONCE and seconds < self._quickest):
            self._quickest = seconds
            self._first = seconds * np.array(FIRST_GUESS) / np.array([1, rows, 1, 1])
        self.num_seen += 1
        self._noted.append((1 / seconds, rows / seconds, guessing / seconds, guesses / seconds))
        if self.num_seen <= AT_ONCE or len(self._noted) >= (AT_ONCE if guesses else 4 * AT_ONCE):
            self._learn()

    def plain(self, rows: int) -> float:
        """Return the seconds of a step without guesses."""
        return max(0.0, self._a + self._c * rows)

    @property
    def a_row(self) -> float:
        """Seconds that a row's guessing adds, however many its guesses."""
        return max(0.0, self._g)

    @property
    def a_guess(self) -> float:
        """Seconds that each guess adds."""
        return max(0.0, self._b)

    def _learn(self) -> None:
        relative = np.array(self._noted)
        self._noted = []
        kept = KEPT ** len(relative)
        self._square = kept * self._square + relative.T @ relative
        self._sum = kept * self._sum + relative.sum(axis=0)
        # In units of the first guess, so that the stiffness means the same for each.
        scaled = self._square * np.outer(self._first, self._first) + STIFFNESS * np.eye(4)
        numbers = self._first * np.linalg.solve(scaled, self._first * self._sum + STIFFNESS)
        self._a, self._c, self._g, self._b = numbers.tolist()
