"""The answers to one request of the API as they grow: the engine's thread writes, one coroutine reads.

Nothing of them is stored. When the client goes, they are stopped at the next token.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from sanbai.generation.request import NewToken, PromptLogprobs, Request
from sanbai.serving.engine import Engine, Order, Outcome, ServedModel
from sanbai.serving.problems import Problem

KEEP_ALIVE_SECONDS = 15.0
Result = TypeVar("Result")


@dataclass(eq=False)
class Choice:
    """One answer."""

    index: int
    request: Request
    news: list[NewToken] = field(default_factory=list)
    prompt: PromptLogprobs | None = None
    """What the model thought of the prompt, where that was asked for."""
    outcome: Outcome | None = None

    @property
    def text(self) -> str:
        """What may be shown so far."""
        return "".join(new.text for new in self.news)

    @property
    def finish_reason(self) -> str:
        """Stop or length; an answer that was cut short from outside counts as stopped."""
        return (self.outcome.finish_reason if self.outcome else "") or "stop"


News: TypeAlias = tuple[Choice, NewToken | Outcome]
"""An answer, and what happened to it."""


class Answers:
    """As many answers to each of some prompts as its request has seeds, numbered prompt by prompt."""

    def __init__(self, engine: Engine, served: ServedModel, requests: Sequence[Request]) -> None:
        """Queue them.

        Raises:
            Problem: as `Engine.submit`.
        """
        self.served, self.requests = served, requests
        self._news: deque[News] = deque()
        self._arrived, self._loop = asyncio.Event(), asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.choices: list[Choice] = []
        self._orders: list[Order] = []
        for request in requests:
            begun = [Choice(len(self.choices) + answer, request) for answer in range(len(request.seeds))]
            self.choices += begun
            self._orders.append(self._order(engine, request, begun))
        engine.submit(self._orders)

    def _order(self, engine: Engine, request: Request, choices: Sequence[Choice]) -> Order:
        def tell(choice: Choice, news: NewToken | Outcome) -> None:
            self._news.append((choice, news))
            engine.post.put(self._loop, self._arrived.set)

        return Order(
            self.served,
            request,
            on_token=lambda new: tell(choices[new.answer], new),
            on_end=lambda answer, outcome: tell(choices[answer], outcome),
        )

    def stop(self) -> None:
        """End them at the next token; those that have ended stay as they are."""
        for order in self._orders:
            order.stop()
        # An order refers to these answers. Without this every answer would wait for the cyclic garbage collector.
        self._orders.clear()

    async def follow(self) -> AsyncIterator[list[News]]:
        """Yield what has happened since, as soon as something has, until all answers have ended.

        What happened together is told together: one part of a response costs more than its tokens. An empty list comes
        now and then while nothing happens. However it is left, the answers are stopped.

        Raises:
            Problem: an answer failed.
        """
        self._beat()
        try:
            while any(choice.outcome is None for choice in self.choices):
                await self._arrived.wait()
                self._arrived.clear()
                news: list[News] = []
                try:
                    while self._news:
                        news.append(self._news.popleft())
                        _take(*news[-1])
                except Problem:
                    yield news[:-1]
                    raise
                yield news
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self.stop()

    def _beat(self) -> None:
        """Wake whoever follows, now and then: one timer that goes on beating is cheaper than one a token."""
        if self._timer is not None:
            self._arrived.set()
        self._timer = self._loop.call_later(KEEP_ALIVE_SECONDS, self._beat)

    async def finish(self, request: HttpRequest) -> None:
        """Wait for all answers.

        Raises:
            ClientDisconnect: the client left; the answers are stopped.
            Problem: an answer failed.
        """

        async def read() -> None:
            async for _ in self.follow():
                pass

        try:
            await unless_gone(request, asyncio.create_task(read()))
        finally:
            self.stop()

    def tokens_of(self, choice: Choice) -> list[NewToken]:
        """Return an answer's tokens without the one that ended it."""
        return [new for new in choice.news if new.token not in self.served.stop_ids]

    def usage(self) -> dict[str, int]:
        """Count tokens as the tokenizer does: each prompt once, of the answers all but the end of turn."""
        prompt = sum(len(request.prompt) for request in self.requests)
        completion = sum(len(self.tokens_of(choice)) for choice in self.choices)
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


async def unless_gone(request: HttpRequest, work: asyncio.Future[Result]) -> Result:
    """Return the result of some work, for as long as the client waits for it.

    Raises:
        ClientDisconnect: the client left; the work is cancelled.
    """

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    watching: asyncio.Future[None] = asyncio.create_task(watch())
    both: list[asyncio.Future[Any]] = [work, watching]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        for one in both:
            one.cancel()
        await asyncio.gather(*both, return_exceptions=True)


def _take(choice: Choice, news: NewToken | Outcome) -> None:
    if isinstance(news, Outcome):
        choice.outcome = news
        if news.state == "refused":
            message = "the form of the answer is too complex to follow; make the schema or expression simpler"
            raise Problem(400, message, "invalid_value")
        if news.state in {"failed", "interrupted"}:
            raise Problem(500, f"the answer was {news.state}", "generation_failed", "api_error")
        return
    choice.news.append(news)
    choice.prompt = choice.prompt or news.prompt
