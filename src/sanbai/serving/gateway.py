"""The gateway: chat and API as ever, the answers from a server behind them.

vLLM, SGLang, llama.cpp or another Sanbai makes the tokens; accounts, keys, conversations, feedback, limits and errors
are ours. Everything runs in the server's event loop. A client that goes ends its request there, which frees the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sanbai.feedback.accounts import Account
from sanbai.serving.backend import Backend, broken, key_of
from sanbai.serving.dialect import Answers, Piece, estimated_usage
from sanbai.serving.engine import Outcome, State
from sanbai.serving.metrics import Metrics
from sanbai.serving.problems import Problem, overloaded
from sanbai.serving.recipe import ServeRecipe
from sanbai.serving.writer import Stop, Turns, Wanted

PROBE_EVERY_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 15.0
#: After the last answer's end a backend may still count tokens and say that it is done, for so long.
AFTERWORD_SECONDS = 2.0
#: Events of one stream that wait for a slow reader; then the backend waits.
MOST_EVENTS = 64
LONGEST_NAME = 80
#: Before the first retry; twice as long each time.
RETRY_SECONDS = 0.25
END = object()

log = logging.getLogger(__name__)

Event = dict[str, Any]
Found = TypeVar("Found")


class Feed:
    """A backend's stream, read by a task of its own; `close` ends the request."""

    def __init__(self, source: AsyncIterator[Event | None]) -> None:
        """Begin to read."""
        self._queue: asyncio.Queue[Any] = asyncio.Queue(MOST_EVENTS)
        self._held: list[Any] = []
        self._task = asyncio.create_task(self._read(source))

    async def begin(self) -> None:
        """Wait until the first event is there.

        Raises:
            Problem: the request was refused, or failed.
        """
        self._held = [await self._take(None)]

    async def pieces(self, answers: Answers) -> AsyncIterator[list[Piece] | None]:
        """Yield what comes for the answers until all have ended; None whenever nothing came for a while.

        Raises:
            Problem: the backend failed, or broke off.
        """
        while True:
            try:
                event = await self._take(AFTERWORD_SECONDS if answers.are_whole else KEEP_ALIVE_SECONDS)
                news = answers.take(event) if isinstance(event, dict) else []
            except TimeoutError:
                if answers.are_whole:
                    break
                yield None
                continue
            except Problem:
                if answers.are_whole:
                    break
                raise
            if news:
                yield news
            if event is None or event is END or (answers.are_whole and answers.usage is not None):
                answers.is_done = answers.is_done or event is None
                break
        if rest := answers.rest():
            yield rest

    async def close(self) -> None:
        """End the request, if it has not ended."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _take(self, seconds: float | None) -> Any:
        event = self._held.pop() if self._held else await asyncio.wait_for(self._queue.get(), seconds)
        if isinstance(event, Problem):
            raise event
        return event

    async def _read(self, source: AsyncIterator[Event | None]) -> None:
        try:
            async for event in source:
                await self._queue.put(event)
            await self._queue.put(END)
        except Problem as problem:
            await self._queue.put(problem)
        except Exception as error:  # noqa: BLE001 - whoever waits for the stream must be told, whatever it was
            log.error("backend.failed error=%s", type(error).__name__)
            await self._queue.put(broken("the backend's answer could not be read"))


class Gateway:
    """What stands in the engine's place before a backend; of the server's event loop, except where said."""

    def __init__(self, settings: ServeRecipe, *, key: str = "") -> None:
        """Take the settings of the recipe's `backend`.

        Args:
            settings: section `[serve]`.
            key: the backend's; empty, the environment variable of the settings has it.

        Raises:
            UsageError: the variable is not set.
        """
        self.settings = settings
        self._key = key or key_of(settings.backend_key_variable)
        self._backend: Backend | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._models: list[Event] = []
        self._trouble = "the backend has not been asked yet"
        self._closing = False
        self._num_open = 0
        self._metrics = Metrics()
        self._writing: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Ask the backend what it offers, now and ever again."""
        self._closing, self._loop = False, asyncio.get_running_loop()
        self._backend = Backend(
            self.settings.backend, key=self._key, timeout_seconds=self.settings.backend_timeout_seconds
        )
        await self._probe()
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """End what is still being written, as interrupted."""
        self._closing = True
        tasks = [*self._writing, *([self._watching] if self._watching else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._backend is not None:
            await self._backend.close()

    @property
    def backend(self) -> Backend:
        """The server behind; once started."""
        assert self._backend is not None
        return self._backend

    @property
    def served_name(self) -> str:
        """The backend's model that answers; empty where it has not told any. From any thread."""
        names = [str(one["id"]) for one in self._models]
        return self.settings.backend_model or (names[0] if names else "")

    @property
    def num_running(self) -> int:
        """Answers in work. From any thread."""
        return self._num_open

    @property
    def num_waiting(self) -> int:
        """None wait here: the backend has a queue."""
        return 0

    def refresh(self) -> None:
        """Do nothing: what rounds put into service has no say here."""

    def unready_because(self) -> str:
        """Return why no request should be sent here now; empty when all is well. From any thread."""
        return "shutting down" if self._closing else self._trouble

    def metrics_page(self) -> bytes:
        """Return the server's figures in Prometheus' text format. From any thread."""
        self._metrics.num_running.set(self._num_open)
        return self._metrics.page()

    def check_room(self, count: int) -> None:
        """Refuse what should not be sent on now. From any thread.

        Raises:
            Problem: 503 while shutting down or without any model; 429, too many answers are in work.
        """
        if self._closing:
            raise overloaded("the server is shutting down", retry_after_seconds=5, status=503)
        if not self.served_name:
            raise overloaded(self._trouble or "the backend offers no model", retry_after_seconds=5, status=503)
        if self._num_open + count > self.settings.max_running + self.settings.max_waiting:
            raise overloaded(f"{self._num_open} answers are in work; try again shortly", retry_after_seconds=2)

    @contextlib.contextmanager
    def room(self, count: int) -> Iterator[None]:
        """Hold room for some answers.

        Raises:
            Problem: as `check_room`.
        """
        self.check_room(count)
        began = time.monotonic()
        self._num_open += count
        try:
            yield
        finally:
            self._num_open -= count
            self._metrics.of(self.served_name).whole.observe(time.monotonic() - began)

    def count(self, usage: Event, finish_reasons: Sequence[str]) -> None:
        """Add answers that have ended to the figures."""
        figures = self._metrics.of(self.served_name)
        figures.prompt_tokens.inc(usage["prompt_tokens"])
        figures.generation_tokens.inc(usage["completion_tokens"])
        for reason in finish_reasons:
            figures.count_end(reason)

    async def ask(self, path: str, body: Event) -> Event:
        """Have the backend answer whole; what fails is tried again.

        Raises:
            Problem: it refused, or failed to the last.
        """
        return await self._retried(lambda: self.backend.ask(path, body))

    async def open(self, path: str, body: Event) -> Feed:
        """Have the backend begin a stream; what fails before its first event is tried again.

        Raises:
            Problem: it refused, or failed to the last.
        """

        async def begin() -> Feed:
            feed = Feed(self.backend.follow(path, body))
            try:
                await feed.begin()
            except BaseException:
                await feed.close()
                raise
            return feed

        return await self._retried(begin)

    async def _retried(self, attempt: Callable[[], Awaitable[Found]]) -> Found:
        """Try until it works; nothing has been said to the client yet, and to make an answer again changes nothing."""
        for number in range(self.settings.backend_retries):
            try:
                return await attempt()
            except Problem as problem:
                if problem.status not in {502, 503}:
                    raise
            await asyncio.sleep(RETRY_SECONDS * 2**number)
        return await attempt()

    def read(self, owner: Account, turns: Turns) -> RemoteConversation:  # noqa: ARG002 - a writer is told who asks
        """See `writer.Writer`; called from threads."""
        self.check_room(0)
        return RemoteConversation(self, self.served_name[:LONGEST_NAME], turns)

    def write(self, turns: Turns, wanted: Wanted) -> Stop:
        """Begin an answer of the chat; from any thread but the loop's.

        Returns:
            What ends it.
        """
        loop = self._loop
        assert loop is not None
        stop = asyncio.Event()

        def begin() -> None:
            task = asyncio.create_task(self._write(turns, wanted, stop))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

        loop.call_soon_threadsafe(begin)
        return lambda: _call_in(loop, stop.set)

    async def _write(self, turns: Turns, wanted: Wanted, stop: asyncio.Event) -> None:
        began, answers = time.monotonic(), Answers(1)
        reading = asyncio.create_task(self._read_answer(turns, wanted, answers))
        stopping = asyncio.create_task(stop.wait())
        state: State = "interrupted"
        try:
            await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            state = "stopped" if not reading.done() else "failed" if reading.exception() else "done"
        finally:
            for task in (reading, stopping):
                task.cancel()
            await asyncio.gather(reading, stopping, return_exceptions=True)
            reason = (answers.finish_reasons or [""])[0] if state == "done" else ""
            usage = _usage(turns, answers)
            wanted.on_end(
                Outcome(
                    state,
                    "length" if reason == "length" else reason and "stop",
                    usage["completion_tokens"],
                    time.monotonic() - began,
                )
            )

    async def _read_answer(self, turns: Turns, wanted: Wanted, answers: Answers) -> None:
        with self.room(1):
            feed = await self._open_chat(list(turns), wanted.seed)
            try:
                async for news in feed.pieces(answers):
                    for piece in news or ():
                        if text := piece.delta.get("content"):
                            wanted.on_text(text)
            finally:
                await feed.close()
            self.count(_usage(turns, answers), answers.finish_reasons)

    async def _open_chat(self, turns: Turns, seed: int) -> Feed:
        """Ask the backend; a conversation that is too long for it loses its oldest turns."""
        while True:
            sampling = self.settings.sampling
            body = {
                "model": self.served_name,
                "messages": [dict(turn) for turn in turns],
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "max_tokens": sampling.max_new_tokens,
                "seed": seed,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            try:
                return await self.open("/chat/completions", body)
            except Problem as problem:
                if problem.code != "context_length_exceeded" or len(turns) == 1:
                    raise
                turns = turns[-(len(turns) // 4 * 2 + 1) :]  # an odd number, so that a person speaks first

    async def _probe(self) -> None:
        try:
            self._models = await self.backend.models() or self._models
            self._trouble = "" if self.served_name else "the backend offers no model"
        except Problem as problem:
            self._trouble = problem.message

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PROBE_EVERY_SECONDS)
            await self._probe()


@dataclass(frozen=True)
class RemoteConversation:
    """See `writer.Conversation`."""

    gateway: Gateway
    model: str
    turns: Turns
    round: int = 0
    prompt_tokens: int = 0

    def answer(self, wanted: Sequence[Wanted]) -> list[Stop]:
        """See `writer.Conversation`."""
        self.gateway.check_room(len(wanted))
        return [self.gateway.write(self.turns, one) for one in wanted]


def _usage(turns: Turns, answers: Answers) -> Event:
    return answers.usage or estimated_usage("\n".join(turn["content"] for turn in turns), answers.text)


def _call_in(loop: asyncio.AbstractEventLoop, call: Stop) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended, and the answer with it
        loop.call_soon_threadsafe(call)
