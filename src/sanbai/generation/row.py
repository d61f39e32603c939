"""One answer in the making: its tokens, where they are kept, and what decides its end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sanbai.generation.request import EndReason, PromptLogprobs, Request, TopLogprobs
from sanbai.generation.stop_strings import StopStrings
from sanbai.model.paged_memory import Memory
from sanbai.text.stream import TextStream


class Row:
    """An answer of a request. Waits, is read (prefill), is written (decode), and may be sent back to wait."""

    def __init__(
        self,
        request: Request,
        *,
        number: int,
        answer: int,
        order: int,
        limit: int,
        uniforms: Sequence[float],
        start_token: int | None = None,
    ) -> None:
        """Begin before the prompt has been read.

        Args:
            request: what was asked.
            number: of the request.
            answer: index among its answers.
            order: rows that came later have a greater one.
            limit: tokens at most.
            uniforms: of its draws, as many as the limit.
            start_token: what the answer begins behind where the prompt is an encoder's to read.
        """
        self.request, self.number, self.answer, self.order = request, number, answer, order
        self.limit, self.uniforms = limit, uniforms
        self.ids = list(request.prompt) if start_token is None else [start_token]
        """Prompt and answer; what an encoder reads is none of them."""
        self.memory: Memory | None = None
        """What an encoder has read, from its beginning on; goes with the blocks."""
        self.salt = ""
        """Whose prefixes it may share: its tenant's, of its adapter."""
        self.remembered = request.remember and start_token is None
        """Whether its blocks may be found by texts that begin alike: not where they depend on what an encoder read."""
        self.num_prompt = len(self.ids)
        self.siblings: list[Row] = []
        """Answers to the same prompt, which join when it has been read."""
        self.blocks: list[int] = []
        self.num_cached = 0
        """Positions whose keys and values lie in the blocks."""
        self.keys: list[bytes] = []
        """Of its full blocks that have been entered, in the pool's chain."""
        self.lease = object()
        """Another one each time the blocks are; tells the window what it has copied."""
        self.draft: list[int] = []
        """Tokens that may come next, guessed for this step (`speculation.py`)."""
        self.mask: Tensor | None = None
        """Tokens allowed next, bool_V; None allows all."""
        self.seen_V: Tensor | None = None
        self.count_V: Tensor | None = None
        """Tokens of prompt and answer, and how often the answer holds each; kept where the shaping asks for them."""
        self.text: TextStream | None = None
        self.stops = StopStrings(request.stop_strings)
        self.prompt_scores: list[tuple[list[float], list[TopLogprobs]]] = []
        """What has been read of the prompt, if asked: log-probabilities and likeliest tokens, a chunk an entry."""

    @property
    def num_new(self) -> int:
        """Tokens drawn."""
        return len(self.ids) - self.num_prompt

    def uniform(self, ahead: int) -> float:
        """Return the number that decides the next draw, or one `ahead` of it; depends on seed and position alone."""
        return self.uniforms[self.num_new + ahead]

    def tokens(self, start: int, end: int) -> list[int]:
        """Return known tokens and, behind them, guessed ones."""
        known = len(self.ids)
        return self.ids[start:end] + self.draft[max(0, start - known) : max(0, end - known)]

    @property
    def needs_prompt_scores(self) -> bool:
        """Whether the prompt must be read whole for its log-probabilities, and has not been."""
        return self.request.prompt_logprobs and self.answer == 0 and self.num_new == 0

    def take_prompt_scores(self) -> PromptLogprobs | None:
        """Return, once, what has been read of the prompt, if it was asked for."""
        if not self.prompt_scores:
            return None
        parts, self.prompt_scores = self.prompt_scores, []
        return PromptLogprobs(
            logprobs=[each for logprobs, _ in parts for each in logprobs],
            top=[each for _, top in parts for each in top],
        )

    def ask_mask(self) -> EndReason | None:
        """Ask the request's mask what may come next; return why the answer ends here, if it does."""
        if self.request.mask is None:
            return None
        try:
            mask = self.request.mask(self.ids[self.num_prompt :]).bool()
            if self.mask is not None and mask.shape != self.mask.shape:
                return "failed"
            self.mask = mask
            return None if bool(mask.any()) else "stop"
        except Exception:  # noqa: BLE001 - one request's function must not end the others' answers
            return "failed"

    def count(self, vocab_size: int, device: torch.device) -> None:
        """Begin to keep what penalties need, if they are asked for."""
        if self.request.shaping.bends_logits:
            self.seen_V = torch.zeros(vocab_size, dtype=torch.bool, device=device)
            self.seen_V[self.ids] = True
            self.count_V = torch.zeros(vocab_size, device=device)

    def push(self, token: int) -> tuple[str, EndReason | None]:
        """Append a drawn token; return the text that it releases, and why the answer ends with it, if it does."""
        self.ids.append(token)
        if self.seen_V is not None and self.count_V is not None:
            self.seen_V[token] = True
            self.count_V[token] += 1
        reason: EndReason | None = None
        if token in self.request.stop_ids:
            reason = "stop"
        elif self.num_new == self.limit:
            reason = "length"
        else:
            reason = self.ask_mask()
        if self.text is None:
            return "", reason
        released = self.stops.push(self.text.push(token) + (self.text.finish() if reason else ""))
        if self.stops.found:
            reason = "stop"
        return (released + self.stops.finish() if reason else released), reason
