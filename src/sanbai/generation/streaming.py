"""One answer, piece by piece, as the chat page and the API want it: no half characters, no part of a stop string."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sanbai.generation.engine import FinishReason, check_prompts, draw_uniforms, prefill
from sanbai.generation.sampling import Sampling, sample_tokens
from sanbai.model.cache import KeyValueCache
from sanbai.model.heads import LanguageModel
from sanbai.text.stream import TextStream
from sanbai.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Piece:
    """What one drawn token adds."""

    text: str
    """May be empty: inside a character, for a reserved token, or while a stop string may be beginning."""
    token: int
    logprob: float
    """In nats, at the sampling temperature, before top-k and top-p."""
    finish_reason: FinishReason | None
    """Set on the last piece alone."""


def stream(
    model: LanguageModel,
    prompt: Sequence[int],
    sampling: Sampling,
    *,
    seed: int,
    stop_ids: Collection[int],
    tokenizer: Tokenizer,
    stop_strings: Sequence[str] = (),
) -> Iterator[Piece]:
    """Yield one piece a token; with the same seed the tokens are those of `generate`.

    The texts, joined, are the answer's text up to the first stop string, which is left out. Between pieces nothing
    runs: closing the iterator ends the work at once and frees the cache.

    Args:
        model: left as it is.
        prompt: token ids, at least one.
        sampling: the rule.
        seed: of this answer's randomness.
        stop_ids: tokens that end the answer.
        tokenizer: the model's.
        stop_strings: texts that end the answer; empty ones are ignored.

    Raises:
        DataError: the prompt is empty.
        ModelError: the prompt fills the model's context.
    """
    check_prompts(model, [prompt])
    return _stream(model, prompt, sampling, seed, stop_ids, TextStream(tokenizer), StopStrings(stop_strings))


def _stream(
    model: LanguageModel,
    prompt: Sequence[int],
    sampling: Sampling,
    seed: int,
    stop_ids: Collection[int],
    text: TextStream,
    stops: StopStrings,
) -> Iterator[Piece]:
    limit = min(sampling.max_new_tokens, model.config.max_positions - len(prompt))
    uniform_M = draw_uniforms([seed], limit)[0].to(model.head_weight.device)
    logits_BV, cache, _ = prefill(model, [prompt], limit)
    for step in range(limit):
        drawn = sample_tokens(logits_BV, uniform_M[step : step + 1], sampling)
        token, logprob = int(drawn.token_B), float(drawn.logprob_B)
        last = token in stop_ids or step == limit - 1
        released = stops.push(text.push(token) + (text.finish() if last else ""))
        if token in stop_ids or stops.found:
            yield Piece(released + stops.finish(), token, logprob, "stop")
            return
        if last:
            yield Piece(released + stops.finish(), token, logprob, "length")
            return
        yield Piece(released, token, logprob, None)
        logits_BV = _next_logits(model, drawn.token_B, cache)


@torch.inference_mode()
def _next_logits(model: LanguageModel, token_B: Tensor, cache: KeyValueCache) -> Tensor:
    logits_BTV: Tensor = model(token_B.unsqueeze(-1), cache=cache)
    return logits_BTV[:, -1]


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
