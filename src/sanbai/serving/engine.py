"""The engine: the served model, a few workers that generate with it, and a bounded queue before them.

An order holds on to the model it was made for. When another model is put into service it is loaded beside the old one,
new orders take it, and the old one is freed when its last order ends: no stream breaks. Workers are threads; torch lets
them run side by side within its kernels, and nothing here touches its thread settings.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sanbai.data.vocabulary import load_tokenizer
from sanbai.feedback.registry import RegisteredModel, find_model, served
from sanbai.feedback.store import Store
from sanbai.foundation.errors import ModelError, SanbaiError
from sanbai.foundation.workspace import Workspace
from sanbai.generation.sampling import Sampling
from sanbai.generation.streaming import Piece, stream
from sanbai.model.encoder_decoder import EncoderDecoder
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import StoredModel, load_language_model
from sanbai.serving.problems import Problem, overloaded
from sanbai.serving.recipe import ServeRecipe
from sanbai.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
#: A worker that has drawn no token for so long is stuck; `/ready` then says so.
STALE_SECONDS = 60.0

State = Literal["done", "stopped", "interrupted", "failed"]


@dataclass(frozen=True)
class ServedModel:
    """A model in memory, with its name and round in the registry."""

    name: str
    round: int
    artifact: str
    model: LanguageModel
    tokenizer: Tokenizer

    @property
    def context(self) -> int:
        """Longest prompt and answer together, in tokens."""
        return self.model.config.max_positions

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self.tokenizer.reserved.ends()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an order ended.

    Attributes:
        state: done; stopped by whoever asked; interrupted by the server's end; failed.
        finish_reason: stop or length; empty where neither happened.
        completion_tokens: tokens drawn, the end of turn not counted.
        seconds: since a worker took it.
    """

    state: State
    finish_reason: str
    completion_tokens: int
    seconds: float


@dataclass(eq=False)
class Order:
    """One answer to be made. `on_piece` and `on_end` are called in a worker's thread, `on_end` exactly once.

    Attributes:
        served: the model, fixed when the order is made.
        prompt: token ids.
        sampling: how to draw.
        seed: of this answer's randomness.
        stop_strings: texts that end the answer.
    """

    served: ServedModel
    prompt: Sequence[int]
    sampling: Sampling
    seed: int
    on_piece: Callable[[Piece], None]
    on_end: Callable[[Outcome], None]
    stop_strings: tuple[str, ...] = ()
    _stop: State | None = field(default=None, init=False)

    def stop(self, state: State = "stopped") -> None:
        """End it at the next token, or before it begins."""
        self._stop = self._stop or state

    @property
    def stop_state(self) -> State | None:
        """What `stop` was told, or None."""
        return self._stop


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
        self._trouble = ""
        self._waiting: deque[Order] = deque()
        self._running: dict[int, tuple[Order, float]] = {}  # worker -> its order and when its last token came
        self._changed = threading.Condition()
        self._loading = threading.Lock()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Load the served model, if there is one, and start the workers and the watcher."""
        self._closing.clear()
        self.refresh()
        self._threads = [
            threading.Thread(target=self._work, args=(number,), name=f"sanbai-worker-{number}", daemon=True)
            for number in range(self._settings.num_workers)
        ]
        self._threads.append(threading.Thread(target=self._watch, name="sanbai-watcher", daemon=True))
        for thread in self._threads:
            thread.start()

    def close(self, *, grace_seconds: float) -> None:
        """Take no more orders, let those in hand go on for a while, then end them as interrupted."""
        deadline = time.monotonic() + grace_seconds
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._waiting and not self._running, timeout=grace_seconds)
            left = [*self._waiting, *(order for order, _ in self._running.values())]
        for order in left:
            order.stop("interrupted")
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
        """Orders that no worker has taken yet."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Orders in work."""
        return len(self._running)

    def unready_because(self) -> str:
        """Return why no request should be sent here now; empty when all is well."""
        if self._closing.is_set():
            return "shutting down"
        if self._served is None:
            return self._trouble or "no model is in service"
        with self._changed:
            since = [time.monotonic() - at for _, at in self._running.values()]
        return "a worker has drawn no token for a minute" if max(since, default=0.0) > STALE_SECONDS else ""

    def check_room(self, count: int) -> None:
        """Refuse what `submit` would refuse now.

        Raises:
            Problem: 503 while shutting down, 429 where the queue is full.
        """
        if self._closing.is_set():
            raise overloaded("the server is shutting down", retry_after_seconds=5, status=503)
        idle = self._settings.num_workers - len(self._running)
        if len(self._waiting) + count > self._settings.max_waiting + max(0, idle):
            raise overloaded(
                f"{len(self._waiting)} answers are waiting already; try again shortly", retry_after_seconds=2
            )

    def submit(self, orders: Sequence[Order]) -> None:
        """Queue orders, all or none.

        Raises:
            Problem: as `check_room`.
        """
        with self._changed:
            self.check_room(len(orders))
            self._waiting.extend(orders)
            self._changed.notify(len(orders))

    def refresh(self) -> None:
        """Load the model that the registry serves if it is not the one in memory. Trouble keeps the old one."""
        with self._loading:
            try:
                name = self._chosen or _served_name(self._store)
                if name and name != self.served_name:
                    self._served = self._load(name)
                self._trouble = ""
            except SanbaiError as error:
                self._trouble = str(error)

    def _load(self, name: str) -> ServedModel:
        registered = find_model(self._store, name)
        artifact = self._workspace.load(registered.artifact)
        artifact.verify()
        return ServedModel(
            name=registered.name,
            round=registered.round,
            artifact=artifact.name,
            model=load_language_model(artifact.path),
            tokenizer=load_tokenizer(artifact),
        )

    def _watch(self) -> None:
        while not self._closing.wait(POLL_SECONDS):
            with contextlib.suppress(Exception):  # a locked or vanished database must not end the watch
                self.refresh()

    def _work(self, number: int) -> None:
        while (order := self._take(number)) is not None:
            outcome = self._make(number, order)
            try:
                order.on_end(outcome)
            except Exception as error:  # noqa: BLE001 - nor must whoever listens
                log.error("order.end_failed error=%s", type(error).__name__)
            with self._changed:
                del self._running[number]
                self._changed.notify_all()
            order = None  # an idle worker must not keep an ended order's model

    def _take(self, number: int) -> Order | None:
        """Wait for an order; None when the engine closes and nothing is left."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting) or self._closing.is_set())
            if not self._waiting:
                return None
            order = self._waiting.popleft()
            self._running[number] = (order, time.monotonic())
            return order

    def _make(self, number: int, order: Order) -> Outcome:
        began, count, reason = time.monotonic(), 0, ""
        try:
            with contextlib.closing(_pieces(order)) as pieces:
                while order.stop_state is None and (piece := next(pieces, None)) is not None:
                    self._running[number] = (order, time.monotonic())
                    count += piece.token not in order.served.stop_ids
                    reason = piece.finish_reason or ""
                    order.on_piece(piece)
        except Exception as error:  # noqa: BLE001 - whatever breaks one answer must not end the worker
            log.error("order.failed model=%s error=%s", order.served.name, type(error).__name__)
            return Outcome("failed", "", count, time.monotonic() - began)
        state = "done" if reason else order.stop_state or "done"
        return Outcome(state, reason, count, time.monotonic() - began)


def check_servable(workspace: Workspace, registered: RegisteredModel) -> None:
    """Refuse a model that cannot serve, before a server starts.

    Raises:
        UnknownNameError: its artifact is gone.
        ArtifactError: it has no tokenizer, or a damaged one.
        ModelError: it writes no text.
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
    load_tokenizer(artifact)


def _served_name(store: Store) -> str:
    deployment = served(store)
    return deployment.model if deployment is not None else ""


def _pieces(order: Order) -> Generator[Piece]:
    """Start the generator; it runs between two of its pieces only."""
    yield from stream(
        order.served.model,
        order.prompt,
        order.sampling,
        seed=order.seed,
        stop_ids=order.served.stop_ids,
        tokenizer=order.served.tokenizer,
        stop_strings=order.stop_strings,
    )


def context_exceeded(served_model: ServedModel, prompt_tokens: int) -> Problem:
    """Return the refusal of a prompt that leaves no room for an answer."""
    return Problem(
        400,
        f"the messages have {prompt_tokens} tokens and the model's context {served_model.context}; shorten them",
        "context_length_exceeded",
        param="messages",
    )
