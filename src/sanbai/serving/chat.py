"""The chat: questions become messages, answers grow on the server whether anyone looks or not.

A running answer is an event log (`text`, `html`, `done`, `error`) that any page of its owner can follow from any point,
and pieces in the database, so that neither a closed browser nor a killed server loses it.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sanbai.feedback import conversations, generations, registry
from sanbai.feedback.accounts import Account
from sanbai.feedback.conversations import Message
from sanbai.feedback.generations import Ending, Generation, Plan
from sanbai.feedback.store import Store
from sanbai.foundation.errors import DataError, UnknownNameError
from sanbai.foundation.files import canonical_json
from sanbai.foundation.seeds import derive_seed
from sanbai.serving.engine import Outcome
from sanbai.serving.event_log import EventLog
from sanbai.serving.markdown import render_markdown
from sanbai.serving.problems import Problem, overloaded
from sanbai.serving.recipe import ServeRecipe
from sanbai.serving.writer import Stop, Wanted, Writer

log = logging.getLogger(__name__)

HTML_SECONDS = 0.2
KEEP_SECONDS = 1.0
SEED_BITS = 48  # exact as a number of JavaScript


class Answer:
    """One answer in the making: what the scribe writes to its log and to the store."""

    def __init__(self, store: Store, owner: Account, generation: Generation, round_number: int) -> None:
        self.owner, self.generation, self.round = owner, generation, round_number
        self.log = EventLog()
        self._store = store
        self._texts: list[str] = []
        self._unkept: list[str] = []
        self._num_kept = 0
        self._rendered_at = self._kept_at = time.monotonic()
        self._stop: Stop | None = None
        self._is_unwanted = False

    def begin(self, stop: Stop) -> None:
        """Learn how to end what its writer has begun."""
        self._stop = stop
        if self._is_unwanted:
            stop()

    def stop(self) -> None:
        """End it at the next token, or as soon as it begins."""
        self._is_unwanted = True
        if self._stop is not None:
            self._stop()

    def add(self, text: str) -> None:
        """Take what one more token adds."""
        self._texts.append(text)
        self._unkept.append(text)
        self.log.append("text", {"text": text})
        now = time.monotonic()
        if now - self._rendered_at >= HTML_SECONDS:
            self.log.append("html", {"html": render_markdown("".join(self._texts))})
            self._rendered_at = time.monotonic()
        if now - self._kept_at >= KEEP_SECONDS:
            generations.append_piece(self._store, self.generation, self._num_kept, "".join(self._unkept))
            self._num_kept += 1
            self._unkept.clear()
            self._kept_at = time.monotonic()

    def end(self, outcome: Outcome) -> None:
        """Write the message; only then tell the readers that it is done."""
        text = "".join(self._texts)
        state = "failed" if outcome.state == "refused" else outcome.state
        ending = Ending(state, outcome.finish_reason, outcome.completion_tokens, round(outcome.seconds, 3))
        try:
            generations.end_generation(self._store, self.generation, text, ending)
        except Exception:  # noqa: BLE001 - a full disk; the answer will be recovered at the next start
            self.log.append("error", {"message": "the answer could not be saved"}, last=True)
            return
        if state == "failed":
            self.log.append("error", {"message": "the answer could not be generated; try again"}, last=True)
        else:
            self.log.append("done", done_event(self.generation, ending, text, self.round), last=True)


def done_event(generation: Generation, ending: Ending, text: str, round_number: int) -> dict[str, Any]:
    """Return what a page is told at the end."""
    return {
        "html": render_markdown(text),
        "state": ending.state,
        "finish_reason": ending.finish_reason,
        "model": generation.plan.model,
        "round": round_number,
        "tokens": ending.completion_tokens,
        "seconds": ending.seconds,
    }


class Chat:
    """All answers in the making, by generation.

    The engine's thread must not wait for pages and disks: one thread, the scribe, renders and keeps what it says.
    """

    def __init__(self, store: Store, writer: Writer, settings: ServeRecipe) -> None:
        self._store, self._writer, self._settings = store, writer, settings
        self._scribe = ThreadPoolExecutor(1, "sanbai-scribe")
        self._answers: dict[str, Answer] = {}
        self._lock = threading.Lock()

    def ask(
        self, owner: Account, conversation_id: str, content: str, *, parent_id: str, num_drafts: int, seed: int | None
    ) -> tuple[Message, list[Generation]]:
        """Keep what a person wrote and begin one answer, or two drafts to choose from.

        Raises:
            UnknownNameError: no such conversation or parent.
            DataError: the message is empty or too long.
            Problem: too much is going on, or no model is in service.
        """
        if len(content) > self._settings.max_message_characters:
            raise DataError(
                f"a message of {len(content)} characters; wanted at most {self._settings.max_message_characters}"
            )
        self._check_room(owner, num_drafts)
        said = conversations.add_message(self._store, owner, conversation_id, content=content, parent_id=parent_id)
        return said, self._begin(owner, said, num_drafts, seed)

    def regenerate(self, owner: Account, message_id: str, *, seed: int | None) -> Generation:
        """Begin another answer beside one that exists (or to a message that has none).

        Raises:
            UnknownNameError: no such message.
            Problem: too much is going on, or no model is in service.
        """
        message = conversations.find_message(self._store, owner, message_id)
        if message.role == "assistant" and message.parent_id:
            message = conversations.find_message(self._store, owner, message.parent_id)
        self._check_room(owner, 1)
        return self._begin(owner, message, 1, seed)[0]

    def stop(self, owner: Account, generation_id: str) -> None:
        """End an answer at the next token; what is there is kept. Ended ones stay as they are.

        Raises:
            UnknownNameError: no such generation.
        """
        answer = self._answers.get(generation_id)
        if answer is None or answer.owner.id != owner.id:
            generations.find_generation(self._store, owner, generation_id)
        else:
            answer.stop()

    def delete(self, owner: Account, conversation_id: str) -> None:
        """Delete a conversation and stop what is being written in it.

        Raises:
            UnknownNameError: no such conversation.
        """
        for generation in generations.list_generations(self._store, owner, conversation_id):
            if generation.state == "running":
                self.stop(owner, generation.id)
        conversations.delete_conversation(self._store, owner, conversation_id)

    def follow(self, owner: Account, generation_id: str, after: int) -> EventLog:
        """Return the log of a running answer, or of an ended one a log with its text and its end.

        Raises:
            UnknownNameError: no such generation.
        """
        answer = self._answers.get(generation_id)
        if answer is not None and answer.owner.id == owner.id:
            return answer.log
        generation = generations.find_generation(self._store, owner, generation_id)
        log = EventLog(first=after + 1)
        if generation.ending is None:
            log.append("error", {"message": "the server was stopped while it answered"}, last=True)
            return log
        text = conversations.find_message(self._store, owner, generation.message_id).content
        if after < 0:
            log.append("text", {"text": text})
        log.append("done", done_event(generation, generation.ending, text, self._round(generation)), last=True)
        return log

    def text_so_far(self, generation_id: str) -> str:
        """Return what a running answer has written; empty where it is not running here."""
        answer = self._answers.get(generation_id)
        return "".join(event.data["text"] for event in answer.log.after(-1) if event.kind == "text") if answer else ""

    def _round(self, generation: Generation) -> int:
        try:
            return registry.find_model(self._store, generation.plan.model).round
        except UnknownNameError:
            return 0  # a backend's model

    def _check_room(self, owner: Account, count: int) -> None:
        self._writer.check_room(count)
        with self._lock:
            active = sum(answer.owner.id == owner.id for answer in self._answers.values())
        if active + count > self._settings.max_active_per_account:
            raise overloaded("you have several answers running; wait for one to end", retry_after_seconds=2)

    def _begin(self, owner: Account, parent: Message, count: int, seed: int | None) -> list[Generation]:
        turns = [{"role": one.role, "content": one.content} for one in conversations.path_to(self._store, parent)]
        conversation = self._writer.read(owner, turns)
        first = self._seed(owner, parent, turns) if seed is None else seed
        drawn = self._settings.sampling.model_dump(mode="json")
        if self._settings.candidates > 1:
            drawn |= {"candidates": self._settings.candidates, "safe_threshold": self._settings.safe_threshold}
        plans = [Plan(conversation.model, drawn, first + number, conversation.prompt_tokens) for number in range(count)]
        begun = generations.begin_generations(self._store, parent, plans, drafts=count > 1)
        answers = [Answer(self._store, owner, generation, conversation.round) for generation in begun]
        with self._lock:
            self._answers |= {answer.generation.id: answer for answer in answers}
        try:
            stops = conversation.answer([self._wanted(answer) for answer in answers])
        except Problem:
            for answer in answers:
                self._end(answer, Outcome("failed", "", 0, 0.0))
            raise
        for answer, stop in zip(answers, stops, strict=True):
            answer.begin(stop)
        return begun

    def _seed(self, owner: Account, parent: Message, turns: Sequence[Mapping[str, str]]) -> int:
        """Return a fresh seed; for simulated labelers one that what was asked determines.

        A round that was killed lets them ask again; the answers, and so the snapshot, are then the same.
        """
        if owner.source == "person":
            return secrets.randbits(SEED_BITS)
        made = generations.list_generations(self._store, owner, parent.conversation_id)
        num_siblings = sum(one.parent_id == parent.id for one in made)
        return derive_seed(num_siblings, owner.name, canonical_json(turns)) >> (63 - SEED_BITS)

    def _wanted(self, answer: Answer) -> Wanted:
        return Wanted(
            answer.generation.plan.seed,
            on_text=lambda text: self._note(answer.add, text),
            on_end=lambda outcome: self._note(self._end, answer, outcome),
        )

    def _note(self, write: Callable[..., None], *what: Any) -> None:
        self._scribe.submit(self._write, write, *what)

    @staticmethod
    def _write(write: Callable[..., None], *what: Any) -> None:
        try:
            write(*what)
        except Exception as error:  # noqa: BLE001 - one answer's trouble must not silence the others
            log.error("chat.write_failed error=%s", type(error).__name__)

    def _end(self, answer: Answer, outcome: Outcome) -> None:
        answer.end(outcome)
        with self._lock:
            del self._answers[answer.generation.id]

    def close(self) -> None:
        """Keep what is still to be kept; after the engine was closed."""
        self._scribe.shutdown(wait=True)
