"""The engine: what the registry serves, one thread that makes all answers with it, and a bounded queue before them.

The thread drives a `ContinuousEngine`: every step reads one token of each answer in the making. An order holds on to
the model it was made for. When another model is put into service it is loaded beside the old one, new orders take it,
and the old one is stepped until its last order ends and then freed: no stream breaks.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sanbai.data.vocabulary import load_tokenizer
from sanbai.feedback.registry import RegisteredModel, find_model, served
from sanbai.feedback.store import Store
from sanbai.foundation.device import give_back_memory
from sanbai.foundation.errors import DataError, ModelError, SanbaiError, UsageError
from sanbai.foundation.workspace import Workspace
from sanbai.generation.engine import ContinuousEngine, EngineSettings
from sanbai.generation.grammar import GrammarTokenizer
from sanbai.generation.precision import decoding_copy
from sanbai.generation.request import NewToken, Request
from sanbai.model.encoder_decoder import EncoderDecoder
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import StoredModel, load_language_model
from sanbai.model.paged import check_pageable
from sanbai.serving.metrics import Metrics
from sanbai.serving.post import Post
from sanbai.serving.problems import Problem, overloaded
from sanbai.serving.readings import Reading, Readings
from sanbai.serving.recipe import ServeRecipe
from sanbai.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
#: With work in hand and no step for so long the engine is stuck; `/ready` then says so.
STALE_SECONDS = 60.0
BLOCK_SIZE = 16
#: The cache never holds more than so many whole contexts for each answer that may be made at the same time.
MOST_CONTEXTS = 4

State = Literal["done", "stopped", "interrupted", "failed", "refused"]


@dataclass(frozen=True)
class ServedModel:
    """A model in memory, with its name and round in the registry."""

    name: str
    round: int
    artifact: str
    model: LanguageModel
    tokenizer: Tokenizer
    draft: LanguageModel | None = None
    """Guesses for it."""

    @property
    def context(self) -> int:
        """Longest prompt and answer together, in tokens."""
        return self.model.config.max_positions

    @functools.cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self.tokenizer.reserved.ends()

    @functools.cached_property
    def longest_token(self) -> int:
        """Bytes of the longest token."""
        return max(len(self.tokenizer.token_bytes(id_)) for id_ in range(self.tokenizer.vocab_size))

    @functools.cached_property
    def grammar_tokenizer(self) -> GrammarTokenizer:
        """The tokenizer as grammars see it."""
        return GrammarTokenizer(self.tokenizer, vocab_size=self.model.config.vocab_size, stop_ids=self.stop_ids)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an answer ended.

    Attributes:
        state: done; stopped by whoever asked; interrupted by the server's end; failed; refused, because it cannot be
            made as it was asked for.
        finish_reason: stop or length; empty where neither happened.
        completion_tokens: tokens drawn, the end of turn not counted.
        seconds: since the engine took it.
    """

    state: State
    finish_reason: str
    completion_tokens: int
    seconds: float


@dataclass(eq=False)
class Order:
    """A prompt and the answers wanted to it. Both functions are called in the engine's thread and must return at once.

    Attributes:
        served: the model, fixed when the order is made.
        request: what the engine is asked; one answer a seed.
        on_token: told of every token.
        on_end: told of each answer's end, with the answer's index, exactly once.
    """

    served: ServedModel
    request: Request
    on_token: Callable[[NewToken], None]
    on_end: Callable[[int, Outcome], None]
    began: float = field(default_factory=time.monotonic, init=False)
    _stop: State | None = field(default=None, init=False)

    def stop(self, state: State = "stopped") -> None:
        """End it at the next token, or before it begins."""
        self._stop = self._stop or state

    @property
    def stop_state(self) -> State | None:
        """What `stop` was told, or None."""
        return self._stop


class _Work:
    """An order that the engine has taken."""

    def __init__(self, order: Order, metrics: Metrics, on_done: Callable[[Order], None]) -> None:
        self.order, self.began, self._on_done = order, time.monotonic(), on_done
        self.counts = dict.fromkeys(range(len(order.request.seeds)), 0)  # answer in the making -> its tokens
        self._metrics = metrics.of(order.served.name)
        self._last: dict[int, float] = {}  # answer -> when its last token came
        self._metrics.prompt_tokens.inc(len(order.request.prompt))

    def tell(self, new: NewToken) -> None:
        """Pass a token on, and the answer's end with its last one."""
        now, before = time.monotonic(), self._last.get(new.answer)
        if before is None:
            self._metrics.first_token.observe(now - self.order.began)
        else:
            self._metrics.between_tokens.observe(now - before)
        self._last[new.answer] = now
        self._metrics.generation_tokens.inc()
        self.counts[new.answer] += new.token not in self.order.served.stop_ids
        self.order.on_token(new)
        if new.finish_reason is not None:
            # What fails within the continuous engine is the request's own mask: its form costs too much to follow.
            self._end_answer(new.answer, "refused" if new.finish_reason == "failed" else "done", new.finish_reason)

    def end(self, state: State) -> None:
        """Say that every answer left has ended."""
        for answer in list(self.counts):
            self._end_answer(answer, state)

    def _end_answer(self, answer: int, state: State, reason: str = "") -> None:
        seconds = time.monotonic() - self.began
        outcome = Outcome(state, reason if state == "done" else "", self.counts.pop(answer), seconds)
        self._metrics.count_end(outcome.finish_reason or state)
        try:
            self.order.on_end(answer, outcome)
        except Exception as error:  # noqa: BLE001 - whoever listens must not end the engine
            log.error("order.end_failed error=%s", type(error).__name__)
        if not self.counts:
            self._metrics.whole.observe(time.monotonic() - self.order.began)
            self._on_done(self.order)


class _ModelEngine:
    """One model's continuous engine and the orders in it; of the engine's thread alone."""

    def __init__(self, served_model: ServedModel, settings: ServeRecipe, metrics: Metrics) -> None:
        self.served, self._metrics = served_model, metrics.of(served_model.name)
        self.works: dict[int, _Work] = {}
        self._num_preemptions = self._num_found = 0
        self._engine = ContinuousEngine(
            served_model.model,
            EngineSettings(
                num_blocks=_num_blocks(served_model.model, settings),
                block_size=BLOCK_SIZE,
                max_rows=settings.max_running,
                step_tokens=max(settings.step_tokens, settings.max_running + 1),
                max_waiting=settings.max_running + settings.max_waiting,
                speculation=settings.speculation,
            ),
            tokenizer=served_model.tokenizer,
            draft=served_model.draft,
        )

    def take(self, work: _Work) -> None:
        """Give an order to the continuous engine."""
        self.works[self._engine.submit(work.order.request)] = work

    def step(self) -> None:
        """End what nobody wants any more, and draw one token of every other answer."""
        for number, work in list(self.works.items()):
            if work.order.stop_state is not None:
                self._end(number, work.order.stop_state)
        for new in self._engine.step():
            if (asked := self.works.get(new.request)) is not None:  # else a listener failed on another of its answers
                self._tell(new, asked)
        self._count()

    def fail(self) -> None:
        """End every order: the continuous engine is broken."""
        for number in list(self.works):
            self.works.pop(number).end("failed")

    def _tell(self, new: NewToken, work: _Work) -> None:
        try:
            work.tell(new)
        except Exception as error:  # noqa: BLE001 - whoever listens to one answer must not end the others
            log.error("order.failed model=%s error=%s", self.served.name, type(error).__name__)
            self._end(new.request, "failed")
            return
        if not work.counts:
            del self.works[new.request]

    def _count(self) -> None:
        pool, scheduler = self._engine.pool, self._engine.scheduler
        self._metrics.cache_usage.set(pool.num_used / pool.num_blocks)
        self._metrics.preemptions.inc(scheduler.num_preemptions - self._num_preemptions)
        self._metrics.prefix_hits.inc(scheduler.num_found_tokens - self._num_found)
        self._num_preemptions, self._num_found = scheduler.num_preemptions, scheduler.num_found_tokens

    def _end(self, number: int, state: State) -> None:
        self._engine.cancel(number)
        self.works.pop(number).end(state)


def _num_blocks(model: LanguageModel, settings: ServeRecipe) -> int:
    """Return as many blocks as the recipe's memory holds, no more than are of use, enough for one whole context."""
    config = model.config
    of_one_answer = -(-config.max_positions // BLOCK_SIZE)
    numbers_a_block = 2 * config.num_layers * config.num_kv_heads * config.head_width * BLOCK_SIZE
    affordable = settings.cache_mebibytes * 2**20 // (numbers_a_block * model.head_weight.element_size())
    return max(of_one_answer, min(affordable, MOST_CONTEXTS * settings.max_running * of_one_answer))


class Engine:
    """Loads what the registry serves and works through orders; one a process."""

    def __init__(self, workspace: Workspace, store: Store, settings: ServeRecipe, *, model: str = "") -> None:
        """Take the house's places.

        Args:
            workspace: where models lie.
            store: whose registry says what serves.
            settings: section `[serve]`.
            model: a registered name to serve instead, whatever the registry says.
        """
        self._chosen = model
        self._workspace, self._store, self._settings = workspace, store, settings
        self._served: ServedModel | None = None
        self._metrics = Metrics()
        self.post = Post()
        """Of the engine's thread: what listeners want done in their event loops, delivered after each step."""
        self._trouble = ""
        self._new: list[Order] = []
        self._open: dict[Order, None] = {}  # all that have not ended, the new ones too, oldest first
        self._readings = Readings(max_waiting=settings.max_waiting + 1, batch_tokens=settings.step_tokens)
        self._engines: dict[str, _ModelEngine] = {}  # of the engine's thread alone, by artifact
        self._left = threading.Event()  # a model has left, and its memory can go back to the system
        self._cut_readings = False  # what is only read is not waited for any more
        self._stepped = time.monotonic()
        self._changed = threading.Condition()
        self._loading = threading.Lock()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Load the served model, if there is one, and start the engine's thread and the watcher."""
        self._closing.clear()
        self._cut_readings = False
        self.refresh()
        self._threads = [
            threading.Thread(target=self._drive, name="sanbai-engine", daemon=True),
            threading.Thread(target=self._watch, name="sanbai-watcher", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def close(self, *, grace_seconds: float) -> None:
        """Take no more orders, let those in hand go on for a while, then end them as interrupted."""
        deadline = time.monotonic() + grace_seconds
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._works, timeout=grace_seconds)
            for order in self._open:
                order.stop("interrupted")
            self._cut_readings = True
        for thread in self._threads:
            thread.join(timeout=max(1.0, deadline - time.monotonic()))
        self._threads = []

    @property
    def served(self) -> ServedModel:
        """The model that new orders get.

        Raises:
            Problem: none is in service yet, or it could not be loaded.
        """
        if self._served is None:
            why = self._trouble or "no model is in service yet; run `sanbai quickstart` or promote a round"
            raise overloaded(why, retry_after_seconds=5, status=503)
        return self._served

    @property
    def served_name(self) -> str:
        """Name of the model in service; empty where there is none."""
        return self._served.name if self._served else ""

    @property
    def num_waiting(self) -> int:
        """Answers beyond those that are made at the same time."""
        return max(0, self._num_open - self._settings.max_running)

    @property
    def num_running(self) -> int:
        """Answers in work."""
        return min(self._num_open, self._settings.max_running)

    @property
    def _num_open(self) -> int:
        with self._changed:
            return sum(len(order.request.seeds) for order in self._open)

    def metrics_page(self) -> bytes:
        """Return the server's figures in Prometheus' text format."""
        self._metrics.num_running.set(self.num_running)
        self._metrics.num_waiting.set(self.num_waiting)
        return self._metrics.page()

    def unready_because(self) -> str:
        """Return why no request should be sent here now; empty when all is well."""
        if self._closing.is_set():
            return "shutting down"
        if self._served is None:
            return self._trouble or "no model is in service"
        stuck = self._works and time.monotonic() - self._stepped > STALE_SECONDS
        return "the engine has drawn no token for a minute" if stuck else ""

    def check_room(self, count: int) -> None:
        """Refuse what `submit` would refuse now.

        Args:
            count: answers.

        Raises:
            Problem: 503 while shutting down, 429 where the queue is full.
        """
        if self._closing.is_set():
            raise overloaded("the server is shutting down", retry_after_seconds=5, status=503)
        if self._num_open + count > self._settings.max_running + self._settings.max_waiting:
            raise overloaded(
                f"{self.num_waiting} answers are waiting already; try again shortly", retry_after_seconds=2
            )

    def submit(self, orders: Sequence[Order], *, continues: bool = False) -> None:
        """Queue orders, all or none.

        Args:
            orders: at least one answer each.
            continues: they go on with one that has just ended, in the engine's thread: for them there is always room.

        Raises:
            Problem: as `check_room`.
        """
        with self._changed:
            if not continues:
                self.check_room(sum(len(order.request.seeds) for order in orders))
            self._new.extend(orders)
            self._open.update(dict.fromkeys(orders))
            self._changed.notify_all()

    def read(self, reading: Reading) -> None:
        """Queue what is only read.

        Raises:
            Problem: 503 while shutting down, 429 where the queue is full.
        """
        with self._changed:
            if self._closing.is_set():
                raise overloaded("the server is shutting down", retry_after_seconds=5, status=503)
            self._readings.submit(reading)
            self._changed.notify_all()

    @property
    def _works(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._open) or self._readings.num_open > 0

    def refresh(self) -> None:
        """Load the model that the registry serves if it is not the one in memory. Trouble keeps the old one."""
        with self._loading:
            try:
                name = self._chosen or served_name(self._store)
                if name and name != self.served_name:
                    self._served = self._load(name)
                    self._left.set()
                self._trouble = ""
            except SanbaiError as error:
                self._trouble = str(error)

    def _load(self, name: str) -> ServedModel:
        registered = find_model(self._store, name)
        artifact = self._workspace.load(registered.artifact)
        artifact.verify()
        model = load_language_model(artifact.path)
        check_pageable(model.config)
        tokenizer = load_tokenizer(artifact)
        check_judging(registered.name, tokenizer, self._settings)
        return ServedModel(
            name=registered.name,
            round=registered.round,
            artifact=artifact.name,
            model=decoding_copy(model, self._settings.precision),
            tokenizer=tokenizer,
            draft=self._load_draft(model.config.vocab_size) if self._settings.speculation == "draft" else None,
        )

    def _load_draft(self, vocab_size: int) -> LanguageModel:
        artifact = self._workspace.load(find_model(self._store, self._settings.draft_model).artifact)
        artifact.verify()
        draft = load_language_model(artifact.path)
        check_pageable(draft.config)
        if draft.config.vocab_size != vocab_size:
            raise ModelError(
                f"serve.draft_model {self._settings.draft_model} has {draft.config.vocab_size} tokens and what serves "
                f"{vocab_size}; name one of the same tokenizer"
            )
        return decoding_copy(draft, self._settings.precision)

    def _watch(self) -> None:
        while not self._closing.wait(POLL_SECONDS):
            if self._left.is_set():
                self._left.clear()
                give_back_memory()
            with contextlib.suppress(Exception):  # a locked or vanished database must not end the watch
                self.refresh()

    def _drive(self) -> None:
        """Work until the engine closes and nothing is left, whatever breaks."""
        while (taken := self._take()) is not None:
            try:
                self._turn(taken)
            except Exception as error:  # noqa: BLE001 - nobody may wait for an engine that is no more
                log.error("engine.failed error=%s", type(error).__name__)
                self._fail_all()
            del taken
            self.post.deliver()

    def _turn(self, taken: list[Order]) -> None:
        """Begin new orders, draw one token of every answer, and read one batch of what is only read."""
        for order in taken:
            self._begin(order)
        for artifact, engine in list(self._engines.items()):
            self._step(engine)
            self.post.deliver()
            if not engine.works and (self._served is None or artifact != self._served.artifact):
                self._engines.pop(artifact, None)  # with the last hold on a model that serves no more
                del engine
                self._left.set()
        if self._cut_readings:
            self._readings.end_all(overloaded("the server is shutting down", retry_after_seconds=5, status=503))
        self._readings.step()
        if self._closing.is_set():  # who closes waits for the last of them
            with self._changed:
                self._changed.notify_all()

    def _fail_all(self) -> None:
        """Tell everyone who waits that their answers failed, and begin with nothing."""
        engines, self._engines = list(self._engines.values()), {}
        for engine in engines:
            engine.fail()
        with self._changed:
            left, self._new = list(self._open), []
        for order in left:
            _Work(order, self._metrics, self._done).end("failed")

    def _take(self) -> list[Order] | None:
        """Wait for work; return the new orders, or None when the engine closes and nothing is left."""
        with self._changed:
            if not self._works:
                self._changed.wait_for(lambda: self._works or self._closing.is_set(), timeout=POLL_SECONDS)
            self._stepped = time.monotonic()
            if self._closing.is_set() and not self._works:
                return None
            taken, self._new = self._new, []
            return taken

    def _begin(self, order: Order) -> None:
        work = _Work(order, self._metrics, self._done)
        try:
            if order.served.artifact not in self._engines:
                self._engines[order.served.artifact] = _ModelEngine(order.served, self._settings, self._metrics)
            self._engines[order.served.artifact].take(work)
        except Exception as error:  # noqa: BLE001 - what one order asks for must not end the engine
            log.error("order.refused model=%s error=%s", order.served.name, type(error).__name__)
            work.end("refused" if isinstance(error, DataError | UsageError) else "failed")

    def _step(self, engine: _ModelEngine) -> None:
        try:
            engine.step()
        except Exception as error:  # noqa: BLE001 - everyone in it is told, and the next order gets a new one
            log.error("engine.failed model=%s error=%s", engine.served.name, type(error).__name__)
            self._engines.pop(engine.served.artifact, None)
            engine.fail()

    def _done(self, order: Order) -> None:
        with self._changed:
            self._open.pop(order, None)
            self._changed.notify_all()


def check_servable(workspace: Workspace, registered: RegisteredModel, settings: ServeRecipe) -> None:
    """Refuse a model that cannot serve as it should, before a server starts.

    Raises:
        UnknownNameError: its artifact is gone.
        ArtifactError: it has no tokenizer, or a damaged one.
        ModelError: it writes no text, not one token after the other, or does not judge candidates that are wanted.
    """
    artifact = workspace.load(registered.artifact)
    stored = StoredModel.open(artifact.path)
    if isinstance(stored.model, EncoderDecoder):
        raise ModelError(
            f"{registered.name}: an encoder-decoder, which knows no conversation; wanted a language model; "
            f"`sanbai generate TEXT --model {registered.name}` lets it write"
        )
    if not isinstance(stored.model, LanguageModel):
        raise ModelError(f"{registered.name}: {stored.kind}; wanted a language model")
    check_pageable(stored.model.config)
    check_judging(registered.name, load_tokenizer(artifact), settings)


def check_judging(name: str, tokenizer: Tokenizer, settings: ServeRecipe) -> None:
    """Refuse a model that cannot choose among its candidates.

    Raises:
        ModelError: it has no ratings, and several candidates are wanted.
    """
    if settings.candidates > 1 and not tokenizer.can_rate:
        raise ModelError(
            f"{name} does not judge its answers, and serve.candidates is {settings.candidates}; serve one of "
            "`sanbai train self-judge`, or set it to 1"
        )


def served_name(store: Store) -> str:
    """Return the name of the model that the registry serves; empty where there is none."""
    deployment = served(store)
    return deployment.model if deployment is not None else ""


def context_exceeded(served_model: ServedModel, prompt_tokens: int, *, param: str = "messages") -> Problem:
    """Return the refusal of a prompt that leaves no room for an answer."""
    return Problem(
        400,
        f"{param}: {prompt_tokens} tokens, and the model's context is {served_model.context}; shorten them",
        "context_length_exceeded",
        param=param,
    )


def check_length(served_model: ServedModel, characters: int, *, param: str) -> None:
    """Refuse, before it is cut into tokens, a text that cannot fit: no token holds more bytes than the longest.

    Raises:
        Problem: 400.
    """
    least = -(-characters // served_model.longest_token)  # a character has a byte at least
    if least >= served_model.context:
        raise context_exceeded(served_model, least, param=param)
