"""A simulated labeler at work over HTTP, as a person's browser would be: it knows routes, and nothing of the server.

It signs in with an API key, ranks the tasks assigned to it, and reacts to answers in its own conversations with
thumbs and choices between drafts. Prompts are recognised by their messages; what the world did not write is left alone.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx2

from sanbai.foundation.errors import ResourceError
from sanbai.world.labelers import SimulatedLabeler, judged
from sanbai.world.prompts import Prompt, prompt_id

CHUNK = 100
"""Tasks asked for and answers sent at a time."""
BUSY = frozenset({429, 503})
MAX_TRIES = 8
MAX_WAIT_SECONDS = 10.0
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class PromptBook:
    """The world's prompts, found by their messages."""

    by_id: Mapping[str, Prompt]

    @classmethod
    def of(cls, prompts: Iterable[Prompt]) -> PromptBook:
        """Index the prompts."""
        return cls({prompt.id: prompt for prompt in prompts})

    def find(self, messages: Sequence[Mapping[str, Any]]) -> Prompt | None:
        """Return the prompt with exactly these roles and contents, if the world wrote it."""
        plain = tuple({"role": str(turn["role"]), "content": str(turn["content"])} for turn in messages)
        return self.by_id.get(prompt_id(plain))


@dataclass(frozen=True)
class LabelingCount:
    """What one round of work came to."""

    answered: int
    skipped: int


@dataclass
class LabelerClient:
    """One labeler's HTTP session; use as a context manager.

    Args:
        base_url: the server's address, such as `http://127.0.0.1:8300`.
        key: the account's API key.
        labeler: who it is.
        book: the prompts that it can judge.
        sleep: waits some seconds; replaced in tests.
        transport: carries the requests; the network by default.
    """

    base_url: str
    key: str = field(repr=False)
    labeler: SimulatedLabeler
    book: PromptBook
    sleep: Callable[[float], None] = time.sleep
    transport: httpx2.BaseTransport | None = None

    def __post_init__(self) -> None:
        self._http = httpx2.Client(
            base_url=self.base_url,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=60.0,
            transport=self.transport,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def label_all(self) -> LabelingCount:
        """Rank every task that is assigned to this account and unanswered.

        Raises:
            ResourceError: the server refuses or stays busy.
        """
        answered = skipped = 0
        seen: set[str] = set()
        while True:
            tasks = self._send("GET", f"/api/label/tasks?limit={CHUNK + skipped}")["tasks"]
            fresh = [task for task in tasks if task["id"] not in seen]
            if not fresh:
                return LabelingCount(answered, skipped)
            seen.update(task["id"] for task in fresh)
            answers = [answer for answer in map(self.answer, fresh) if answer is not None]
            for start in range(0, len(answers), CHUNK):
                self._send("POST", "/api/label/answers", {"answers": answers[start : start + CHUNK]})
            answered += len(answers)
            skipped += len(fresh) - len(answers)

    def answer(self, task: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the labeler's answer to a task, or nothing where the world does not know the prompt."""
        prompt = self.book.find(task["messages"])
        if prompt is None:
            return None
        label = self.labeler.label(prompt, task["responses"])
        return {
            "task_id": task["id"],
            "buckets": label["buckets"],
            "ratings": label["ratings"],
            "not_rankable": False,
            "idempotency_key": self._idempotency_key("answer", task["id"]),
        }

    def thumb(self, message_id: str, prompt: Prompt, answer: str) -> int:
        """Give an answer a thumb up or down with a reason; return 1 or -1."""
        value, reason = react(self.labeler, prompt, answer)
        body = {"kind": "thumb", "value": value, "reason": reason, "comment": ""}
        self._send(
            "POST",
            f"/api/messages/{message_id}/feedback",
            {**body, "idempotency_key": self._idempotency_key("thumb", message_id)},
        )
        return value

    def choose(self, drafts_id: str, prompt: Prompt, first: str, second: str) -> int:
        """Choose between two drafts, the first where they tie; return 0 or 1."""
        choice = int(self.labeler.grade(prompt, second) > self.labeler.grade(prompt, first))
        key = self._idempotency_key("choose", drafts_id)
        self._send("POST", f"/api/drafts/{drafts_id}/choose", {"choice": choice, "idempotency_key": key})
        return choice

    def converse(self, prompt: Prompt, *, drafts: int = 1) -> list[str]:
        """Ask a prompt of one turn in a conversation of its own, then react; return the answers.

        Raises:
            ResourceError: the server refuses, stays busy, or an answer does not end within a minute.
        """
        conversation = self._send("POST", "/api/conversations", {})["id"]
        body = {"content": prompt.messages[-1]["content"], "parent_id": None, "drafts": drafts}
        sent = self._send("POST", f"/api/conversations/{conversation}/messages", body)
        wanted = [generation["message_id"] for generation in sent["generations"]]
        answers = self._wait(conversation, wanted)
        if drafts == 2:
            self.choose(sent["drafts_id"], prompt, answers[0], answers[1])
        else:
            self.thumb(wanted[0], prompt, answers[0])
        return answers

    def _wait(self, conversation: str, message_ids: Sequence[str]) -> list[str]:
        """Return the contents of the messages once none is streaming any more."""
        for _ in range(round(60 / POLL_SECONDS)):
            messages = {m["id"]: m for m in self._send("GET", f"/api/conversations/{conversation}")["messages"]}
            found = [messages[name] for name in message_ids if name in messages]
            if len(found) == len(message_ids) and all(message["state"] != "streaming" for message in found):
                return [message["content"] for message in found]
            self.sleep(POLL_SECONDS)
        raise ResourceError(f"{self.base_url}: an answer did not end within a minute; is a model served?")

    def _idempotency_key(self, *names: str) -> str:
        return hashlib.sha256("/".join([self.labeler.name, *names]).encode()).hexdigest()[:32]

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send one request, again while the server is busy; return its JSON.

        Every write carries an idempotency key or is harmless to repeat, so a lost reply may be asked for again.
        """
        trouble = ""
        for attempt in range(MAX_TRIES):
            wait = min(MAX_WAIT_SECONDS, 0.25 * 2**attempt)
            try:
                response = self._http.request(method, path, json=body)
            except httpx2.TransportError as error:
                trouble = type(error).__name__
            else:
                if response.is_success:
                    return response.json() if response.content else {}
                trouble = f"status {response.status_code}"
                if response.status_code not in BUSY:
                    break
                wait = _retry_after(response.headers.get("Retry-After", ""), wait)
            self.sleep(wait)
        raise ResourceError(
            f"{self.base_url}: {method} {path.partition('?')[0]} failed for {self.labeler.name}: {trouble}"
        )


def react(labeler: SimulatedLabeler, prompt: Prompt, answer: str) -> tuple[int, str]:
    """Return a thumb (1 or -1) and the reason for it, by the labeler's own view of the answer."""
    judgement = judged(prompt, answer)
    rating = labeler.label(prompt, [answer])["ratings"][0]["likert"]
    if rating >= 5:
        return 1, "correct" if judgement.correct else "helpful"
    if judgement.harmless < 0.5:
        return -1, "harmful"
    if judgement.over_refusal:
        return -1, "needless_refusal"
    if judgement.honest < 0.5 or not judgement.correct:
        return -1, "wrong"
    return -1, "unclear" if judgement.constraints_met else "ignored_request"


def _retry_after(value: str, otherwise: float) -> float:
    """Return the header's seconds, at most `MAX_WAIT_SECONDS`; its date form falls back."""
    return min(MAX_WAIT_SECONDS, float(value)) if value.replace(".", "", 1).isdigit() else otherwise
