"""Several candidates for an answer, judged by the model that wrote them; the best of the safe ones is given.

LaMDA's way (Thoppilan et al. 2022, arXiv:2201.08239): n answers are drawn, each is asked whether it is safe, those that
are too little so are left out, and the others are ranked by 3 · P(sensible) + P(specific) + P(interesting)
(`objectives/self_judgement.py`). Each question is one attribute's token behind the answer, and the rating the only
token drawn: the engine's prefix cache has read all before, but what lies in the last, partly filled block.

Nothing is shown before the choice; then the chosen answer comes in its pieces, all at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sanbai.foundation.seeds import derive_seed
from sanbai.generation.request import NewToken, Request
from sanbai.generation.sampling import Sampling
from sanbai.objectives.self_judgement import CHOICE_ATTRIBUTES, best_safe
from sanbai.serving.engine import Engine, Order, Outcome, ServedModel
from sanbai.serving.recipe import ServeRecipe

#: An attribute and its rating, behind an answer.
RATING_TOKENS = 2


@dataclass(slots=True)
class _Candidate:
    """One answer in the making."""

    tokens: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    outcome: Outcome | None = None
    probability: dict[str, float] = field(default_factory=dict)
    """Of the attributes asked so far."""


class Contest:
    """The candidates of one answer, from the first draw to the choice.

    All but `stop` happens in the engine's thread, in which the engine calls back.
    """

    def __init__(
        self,
        engine: Engine,
        served: ServedModel,
        settings: ServeRecipe,
        prompt: Sequence[int],
        *,
        seed: int,
        tenant: str,
        on_text: Callable[[str], None],
        on_end: Callable[[Outcome], None],
    ) -> None:
        """Prepare the draws; the caller submits `opening`.

        Args:
            engine: draws and judges.
            served: a model that judges its answers.
            settings: section `[serve]`.
            prompt: leaves room for an answer and a rating.
            seed: of all draws.
            tenant: whose the prefixes are.
            on_text: told of the chosen answer's pieces.
            on_end: told of the end, once.
        """
        self._engine, self._served, self._settings = engine, served, settings
        self._prompt, self._tenant = list(prompt), tenant
        self._on_text, self._on_end = on_text, on_end
        self._began = time.monotonic()
        self._candidates = [_Candidate() for _ in range(settings.candidates)]
        self._is_unwanted = False
        room = served.context - len(self._prompt) - RATING_TOKENS - 1  # the last for an end that was cut off
        sampling = settings.sampling
        request = Request(
            prompt=self._prompt,
            sampling=sampling.model_copy(update={"max_new_tokens": min(sampling.max_new_tokens, room)}),
            seeds=[derive_seed(seed, "candidate", number) for number in range(settings.candidates)],
            stop_ids=served.stop_ids,
            tenant=tenant,
            remember=settings.prefix_cache,
        )
        self.opening = Order(served, request, self._add, self._end_candidate)
        self._orders: list[Order] = [self.opening]

    def stop(self) -> None:
        """End it at the next token; may be called from any thread."""
        self._is_unwanted = True
        for order in self._orders:
            order.stop()

    def _add(self, new: NewToken) -> None:
        candidate = self._candidates[new.answer]
        candidate.tokens.append(new.token)
        if new.text:
            candidate.pieces.append(new.text)

    def _end_candidate(self, answer: int, outcome: Outcome) -> None:
        self._candidates[answer].outcome = outcome
        ended = [candidate.outcome for candidate in self._candidates if candidate.outcome is not None]
        if len(ended) == len(self._candidates):
            self._ask(0, self._candidates, broken=_broken(ended))

    def _ask(self, number: int, candidates: Sequence[_Candidate], *, broken: Outcome | None = None) -> None:
        """Ask the candidates that are left for attribute `number`; when all were asked, choose."""
        if number == 1:  # what is not safe is asked no further
            candidates = [one for one in candidates if one.probability["safe"] >= self._settings.safe_threshold]
        if broken is not None or self._is_unwanted:
            state = broken.state if broken is not None else "stopped"
            self._on_end(Outcome(state, "", 0, time.monotonic() - self._began))
        elif number == len(CHOICE_ATTRIBUTES) or not candidates:
            self._give(candidates)
        else:
            self._rate(number, candidates)

    def _rate(self, number: int, candidates: Sequence[_Candidate]) -> None:
        attribute, ids = CHOICE_ATTRIBUTES[number], self._served.tokenizer.rating
        allowed_V = torch.zeros(self._served.model.config.vocab_size, dtype=torch.bool)
        allowed_V[[ids.yes, ids.no]] = True
        outcomes: list[Outcome] = []

        def mask(_: Sequence[int]) -> Tensor:
            return allowed_V

        def order_of(candidate: _Candidate) -> Order:
            said = [token for token in candidate.tokens if token not in self._served.stop_ids]
            end = self._served.tokenizer.reserved.end
            request = Request(
                prompt=[*self._prompt, *said, end, getattr(ids, attribute)],
                sampling=Sampling(temperature=1.0, max_new_tokens=1),
                seeds=[0],  # whichever rating is drawn, its probability says the other's
                mask=mask,
                tenant=self._tenant,
                remember=self._settings.prefix_cache,
            )

            def hear(new: NewToken) -> None:
                drawn = math.exp(new.sampled_logprob)
                candidate.probability[attribute] = drawn if new.token == ids.yes else 1 - drawn

            def note(_: int, outcome: Outcome) -> None:
                outcomes.append(outcome)
                if len(outcomes) == len(candidates):
                    self._ask(number + 1, candidates, broken=_broken(outcomes))

            return Order(self._served, request, hear, note)

        self._orders = [order_of(candidate) for candidate in candidates]
        if self._is_unwanted:  # it was said while they were made
            self.stop()
        self._engine.submit(self._orders, continues=True)

    def _give(self, candidates: Sequence[_Candidate]) -> None:
        """Tell the best of the safe candidates, or what is said where there is none."""
        best = best_safe([one.probability for one in candidates], threshold=self._settings.safe_threshold)
        seconds = time.monotonic() - self._began
        if best is None:
            self._on_text(self._settings.unsafe_answer)
            self._on_end(Outcome("done", "stop", 0, seconds))
            return
        chosen = candidates[best]
        for piece in chosen.pieces:
            self._on_text(piece)
        assert chosen.outcome is not None
        self._on_end(Outcome("done", chosen.outcome.finish_reason, chosen.outcome.completion_tokens, seconds))


def _broken(outcomes: Sequence[Outcome]) -> Outcome | None:
    """Return the first outcome that is no whole answer."""
    return next((outcome for outcome in outcomes if outcome.state != "done"), None)
