"""Who writes the chat's answers: the engine of this process, or a server behind it (`gateway.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sanbai.feedback.accounts import Account
from sanbai.generation.request import NewToken, Request
from sanbai.serving.candidates import RATING_TOKENS, Contest
from sanbai.serving.engine import Engine, Order, Outcome, ServedModel
from sanbai.serving.recipe import ServeRecipe
from sanbai.text.chat_template import encode_prompt

Turns = Sequence[Mapping[str, str]]
#: Ends an answer at the next token; may be called from any thread, and again.
Stop = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One answer that is wanted. Both functions are called in the writer's thread and must return at once.

    Attributes:
        seed: of its draws.
        on_text: told of every piece of text, never an empty one.
        on_end: told of the answer's end, exactly once.
    """

    seed: int
    on_text: Callable[[str], None]
    on_end: Callable[[Outcome], None]


class Conversation(Protocol):
    """A conversation as its writer reads it."""

    @property
    def model(self) -> str:
        """Name of the model that will answer."""

    @property
    def round(self) -> int:
        """Its round; 0 for models from elsewhere."""

    @property
    def prompt_tokens(self) -> int:
        """Length; 0 where only the writer's own server will know."""

    def answer(self, wanted: Sequence[Wanted]) -> list[Stop]:
        """Begin answers, all or none.

        Raises:
            Problem: as `Writer.check_room`.
        """


class Writer(Protocol):
    """What answers the chat."""

    def check_room(self, count: int) -> None:
        """Refuse what could not be begun now.

        Raises:
            Problem: 503 where nothing can answer, 429 where too many are answered already.
        """

    def read(self, owner: Account, turns: Turns) -> Conversation:
        """Return a conversation made ready; one that is too long loses its oldest turns.

        Raises:
            Problem: 503, nothing can answer.
        """


@dataclass(frozen=True)
class _OwnConversation:
    engine: Engine
    settings: ServeRecipe
    served: ServedModel
    prompt: Sequence[int]
    tenant: str

    @property
    def model(self) -> str:
        return self.served.name

    @property
    def round(self) -> int:
        return self.served.round

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt)

    def answer(self, wanted: Sequence[Wanted]) -> list[Stop]:
        if self.settings.candidates > 1:
            contests = [self._contest(one) for one in wanted]
            self.engine.submit([contest.opening for contest in contests])
            return [contest.stop for contest in contests]
        orders = [self._order(one) for one in wanted]
        self.engine.submit(orders)
        return [order.stop for order in orders]

    def _contest(self, one: Wanted) -> Contest:
        return Contest(
            self.engine,
            self.served,
            self.settings,
            self.prompt,
            seed=one.seed,
            tenant=self.tenant,
            on_text=one.on_text,
            on_end=one.on_end,
        )

    def _order(self, one: Wanted) -> Order:
        request = Request(
            prompt=self.prompt,
            sampling=self.settings.sampling,
            seeds=[one.seed],
            stop_ids=self.served.stop_ids,
            tenant=self.tenant,
            remember=self.settings.prefix_cache,
        )

        def tell(new: NewToken) -> None:
            if new.text:
                one.on_text(new.text)

        return Order(self.served, request, tell, lambda _, outcome: one.on_end(outcome))


@dataclass(frozen=True)
class EngineWriter:
    """The engine of this process."""

    engine: Engine
    settings: ServeRecipe

    def check_room(self, count: int) -> None:
        """See `Writer`."""
        _ = self.engine.served
        self.engine.check_room(count * self.settings.candidates)

    def read(self, owner: Account, turns: Turns) -> Conversation:
        """See `Writer`."""
        served = self.engine.served
        room = max(served.context // 2, served.context - self.settings.sampling.max_new_tokens)
        if self.settings.candidates > 1:
            room = min(room, served.context - RATING_TOKENS - 2)  # an answer of one token, its end, and a rating
        prompt = encode_prompt(served.tokenizer, turns, max_tokens=room)
        return _OwnConversation(self.engine, self.settings, served, prompt, owner.id)
