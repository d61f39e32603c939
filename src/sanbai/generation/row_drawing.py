"""One draw for the rows of a step, each by its own rules and the number that its seed and position give.

Shapes: B rows, of which one may come several times, with guesses behind it; V vocabulary; A rows that something
applies to.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sanbai.generation.drawing import Rules, SampledTokens, bend, collect_rules, draw, top_logprobs
from sanbai.generation.row import Row


class RowDrawer:
    """Keeps the rules between steps: mostly the rows are those of the step before."""

    def __init__(self, device: torch.device) -> None:
        """Begin without rules."""
        self._device = device
        self._ruled: tuple[list[Row], Rules] | None = None

    def draw(self, rows: Sequence[Row], ahead: Sequence[int], logits_BV: Tensor) -> SampledTokens:
        """Draw one token a row.

        Args:
            rows: one for each of the logits.
            ahead: how many tokens beyond the row's next the draw is for.
            logits_BV: the model's, float32 or float64.
        """
        numbers = [row.uniform(count) for row, count in zip(rows, ahead, strict=True)]
        uniform_B = torch.tensor(numbers, device=self._device)
        return draw(logits_BV, self._shape(rows, logits_BV), uniform_B, self._rules(rows, logits_BV.shape[1]))

    def tops(self, rows: Sequence[Row], logits_BV: Tensor) -> list[list[tuple[int, float]]]:
        """Return the likeliest tokens with their log-probabilities, as many as each row's request asks for."""
        tops: list[list[tuple[int, float]]] = [[] for _ in rows]
        if asked := [place for place, row in enumerate(rows) if row.request.top_logprobs]:
            temperature_B1 = self._rules(rows, logits_BV.shape[1]).temperature_B1
            count = max(rows[place].request.top_logprobs for place in asked)
            best = top_logprobs(logits_BV[asked], temperature_B1[asked], count)
            for place, top in zip(asked, best, strict=True):
                tops[place] = top[: rows[place].request.top_logprobs]
        return tops

    def _rules(self, rows: Sequence[Row], vocab_size: int) -> Rules:
        if self._ruled is None or self._ruled[0] != rows:
            rules = [(row.request.sampling, row.request.shaping) for row in rows]
            self._ruled = list(rows), collect_rules(rules, vocab_size, self._device)
        return self._ruled[1]

    def _shape(self, rows: Sequence[Row], logits_BV: Tensor) -> Tensor:
        """Return the logits after penalties, biases and masks; the same tensor where there are none."""
        bent = [place for place, row in enumerate(rows) if row.seen_V is not None]
        masked = [place for place, row in enumerate(rows) if row.mask is not None]
        shaped_BV = logits_BV.clone() if bent or masked else logits_BV
        if bent:
            seen_AV = torch.stack([seen for place in bent if (seen := rows[place].seen_V) is not None])
            count_AV = torch.stack([count for place in bent if (count := rows[place].count_V) is not None])
            shaped_BV[bent] = bend(
                logits_BV[bent], seen_AV, count_AV.to(logits_BV.dtype), [rows[place].request.shaping for place in bent]
            )
        if masked:
            allowed_AV = torch.stack([mask for place in masked if (mask := rows[place].mask) is not None])
            shaped_BV[masked] = shaped_BV[masked].where(allowed_AV.to(self._device), float("-inf"))
        return shaped_BV
