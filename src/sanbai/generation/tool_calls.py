"""Answers that may call tools: free text first, then calls that their grammar keeps in form (`text/tool_calls.py`).

Shapes: V vocabulary of the model.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sanbai.generation.grammar import Grammar
from sanbai.generation.request import TokenMask


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRules:
    """What an answer may call, and how often."""

    marker: int
    """The id that opens a call."""
    stop_ids: Collection[int]
    """Tokens that end an answer."""
    vocab_size: int
    """V."""
    calls: Grammar
    """Of one call; what follows a marker always keeps to it."""
    text: Grammar | None = None
    """Of an answer that calls nothing; a call may stand in its place or after it."""
    must_call: bool = False
    """Whether the answer begins with a call."""
    parallel: bool = True
    """Whether a call may follow another."""

    def mask(self) -> TokenMask:
        """Return a mask function for the answers to one request."""
        in_call, in_text = self.calls.mask(), self.text.mask() if self.text else None
        stop_V, marker_V = self._only(self.stop_ids), self._only([self.marker])
        anything_V = torch.ones_like(marker_V)

        def allowed(answer: Sequence[int]) -> Tensor:
            begun = _last(answer, self.marker)
            if begun is not None:
                next_V = in_call(answer[begun + 1 :])
                may_call = self.parallel and bool((next_V & stop_V).any())
            elif self.must_call:
                return marker_V
            elif in_text is None:
                return anything_V
            else:
                next_V = in_text(answer)
                may_call = not answer or bool((next_V & stop_V).any())
            return next_V | marker_V if may_call else next_V

        return allowed

    def _only(self, ids: Collection[int]) -> Tensor:
        only_V = torch.zeros(self.vocab_size, dtype=torch.bool)
        only_V[list(ids)] = True
        return only_V


def forbid(token: int, *, vocab_size: int) -> TokenMask:
    """Return a mask function that allows everything but one token."""
    allowed_V = torch.ones(vocab_size, dtype=torch.bool)
    allowed_V[token] = False
    return lambda _: allowed_V


def _last(answer: Sequence[int], token: int) -> int | None:
    """Return the last place of a token, or None."""
    return next((place for place in range(len(answer) - 1, -1, -1) if answer[place] == token), None)
