"""The words of vLLM, SGLang, llama.cpp and others, where they differ from OpenAI's protocol, turned into ours.

Pure functions from their JSON to ours. Nothing of theirs is trusted: what has another type than it should is left out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sanbai.serving.problems import Problem, overloaded

LONGEST_MESSAGE = 300
LONGEST_WAIT_SECONDS = 3600
BYTES_A_TOKEN = 4
#: Every word for an answer's end that we have met, as OpenAI's.
FINISH_REASONS = {
    **dict.fromkeys(
        ("stop", "eos", "eos_token", "stop_str", "stop_token", "stop_sequence", "end_turn", "word"), "stop"
    ),
    **dict.fromkeys(("length", "max_tokens", "max_length", "limit", "model_length"), "length"),
    **dict.fromkeys(("tool_calls", "tool_call", "tool_use"), "tool_calls"),
    "function_call": "function_call",
    **dict.fromkeys(("content_filter", "safety"), "content_filter"),
}
#: The backend gave up on an answer; what there is of it is not one.
FAILED = frozenset({"abort", "aborted", "cancelled", "canceled", "error", "failed"})
CONTEXT = re.compile(
    r"context.{0,20}(length|size|window)|exceed_context|maximum.{0,20}length|too many tokens", re.IGNORECASE
)


@dataclass(slots=True)
class Piece:
    """What one event adds to one answer.

    Attributes:
        index: of the answer.
        delta: of a chat's message, only what OpenAI's protocol knows and `reasoning_content`.
        text: of a text to be continued.
        logprobs: as it came.
        finish_reason: one of OpenAI's, or None.
    """

    index: int
    delta: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    logprobs: dict[str, Any] | None = None
    finish_reason: str | None = None


class Answers:
    """What a stream has said of all its answers so far; each ends once, and nothing follows its end."""

    def __init__(self, num_choices: int) -> None:
        self._reasons: list[str | None] = [None] * num_choices
        self.usage: dict[str, Any] | None = None
        """As the backend counts, once it has."""
        self.text = ""
        """Of all answers, in the order of its coming."""
        self.is_done = False
        """Whether the backend said that nothing more comes."""

    @property
    def finish_reasons(self) -> list[str]:
        """How those answers ended that have."""
        return [reason for reason in self._reasons if reason]

    @property
    def are_whole(self) -> bool:
        """Whether every answer has ended."""
        return all(self._reasons)

    def take(self, event: Mapping[str, Any]) -> list[Piece]:
        """Return what an event adds.

        Raises:
            Problem: 502, an answer was given up.
        """
        self.usage = usage_of(event) or self.usage
        news = [piece for piece in pieces_of(event, num_choices=len(self._reasons)) if not self._reasons[piece.index]]
        for piece in news:
            self._reasons[piece.index] = piece.finish_reason or self._reasons[piece.index]
            self.text += piece.text + str(piece.delta.get("content", ""))
        return news

    def rest(self) -> list[Piece]:
        """Return the ends that a server which says it is done has not told.

        Raises:
            Problem: 502, it never said so: the answers broke off.
        """
        if self.are_whole:
            return []
        if not self.is_done:
            raise _broken("the backend's answer broke off")
        open_ = [index for index, reason in enumerate(self._reasons) if not reason]
        self._reasons = [reason or "stop" for reason in self._reasons]
        return [Piece(index, finish_reason="stop") for index in open_]


def pieces_of(event: Mapping[str, Any], *, num_choices: int) -> list[Piece]:
    """Return what an event of a stream, or a whole answer, adds to each choice.

    Raises:
        Problem: 502, the backend gave an answer up.
    """
    choices = event.get("choices")
    found = []
    for choice in choices if isinstance(choices, list) else []:
        index = choice.get("index", 0) if isinstance(choice, dict) else None
        if not isinstance(index, int) or not 0 <= index < num_choices:
            continue
        said = choice.get("delta") or choice.get("message")
        text, logprobs = choice.get("text"), choice.get("logprobs")
        found.append(
            Piece(
                index,
                delta=_delta(said) if isinstance(said, dict) else {},
                text=text if isinstance(text, str) else "",
                logprobs=logprobs if isinstance(logprobs, dict) else None,
                finish_reason=finish_reason_of(choice),
            )
        )
    return found


def finish_reason_of(choice: Mapping[str, Any]) -> str | None:
    """Return why a choice ended, in OpenAI's words; None while it goes on. Words unknown to us are `stop`.

    Raises:
        Problem: 502, it was given up.
    """
    reason = choice.get("finish_reason") or choice.get("stop_type")
    if isinstance(reason, dict):  # SGLang's own
        reason = reason.get("type")
    if not isinstance(reason, str) or reason in {"", "none"}:
        return None
    if reason.lower() in FAILED:
        raise Problem(502, "the backend gave the answer up", "backend_failed", "api_error")
    return FINISH_REASONS.get(reason.lower(), "stop")


def _delta(said: Mapping[str, Any]) -> dict[str, Any]:
    delta: dict[str, Any] = {
        key: said[key]
        for key in ("content", "refusal", "reasoning_content")
        if isinstance(said.get(key), str) and said[key]
    }
    calls = said.get("tool_calls")
    if isinstance(calls, list) and (good := [call for call in calls if isinstance(call, dict)]):
        delta["tool_calls"] = good
    return delta


def usage_of(event: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the tokens counted, if an event tells them: as OpenAI, or as llama.cpp's timings."""
    usage, timings = event.get("usage"), event.get("timings")
    if isinstance(usage, dict):
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    elif isinstance(timings, dict):
        prompt, completion = timings.get("prompt_n"), timings.get("predicted_n")
        if isinstance(cached := timings.get("cache_n"), int) and isinstance(prompt, int):
            prompt += cached
    else:
        return None
    if not isinstance(prompt, int):
        return None
    completion = completion if isinstance(completion, int) else 0
    found: dict[str, Any] = _counted(prompt, completion)
    details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    if isinstance(details, dict) and isinstance(details.get("cached_tokens"), int):
        found["prompt_tokens_details"] = {"cached_tokens": details["cached_tokens"]}
    return found


def estimated_usage(prompt: str, completion: str) -> dict[str, Any]:
    """Return what is told where the backend tells nothing, marked as an estimate: four bytes are a token."""
    return _counted(*(math.ceil(len(text.encode()) / BYTES_A_TOKEN) for text in (prompt, completion))) | {
        "estimated": True
    }


def _counted(prompt: int, completion: int) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def error_of(event: Mapping[str, Any]) -> Problem | None:
    """Return the failure that an event of a stream tells, or None: as OpenAI's, or as vLLM's older one."""
    error = event.get("error")
    if error is None and event.get("object") == "error":
        error = event
    if not error:
        return None
    told = error if isinstance(error, dict) else {}
    code = told.get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    return problem_of(status, {}, json.dumps({"error": error}).encode())


def problem_of(status: int, headers: Mapping[str, str], body: bytes) -> Problem:
    """Return a backend's refusal as ours.

    What it says of a request (400, 404, 413, 422) goes to who sent it. What it says of itself, or of our key, does not.

    Args:
        status: of HTTP, not 200.
        headers: of which Retry-After is passed on.
        body: JSON, or anything.
    """
    if (own := _own_trouble(status, headers)) is not None:
        return own
    message, param, code = _told(body)
    if CONTEXT.search(message) or CONTEXT.search(code):
        code = "context_length_exceeded"
    if status == 404:
        return Problem(404, message or "the backend knows no such model or route", code or "not_found", param=param)
    status = 413 if status == 413 else 400
    return Problem(status, message or "the backend refuses the request", code or "invalid_value", param=param)


def _own_trouble(status: int, headers: Mapping[str, str]) -> Problem | None:
    """Return what is wrong with the backend itself; None where its status is about the request."""
    if status in {400, 404, 413, 422} or (404 < status < 500 and status not in {408, 429}):
        return None
    if status == 429:
        return overloaded("the backend is busy; try again shortly", retry_after_seconds=_wait_seconds(headers, 2))
    if status == 503:
        return overloaded("the backend is not ready", retry_after_seconds=_wait_seconds(headers, 5), status=503)
    if status in {408, 504}:
        return Problem(504, "the backend took too long", "backend_timeout", "api_error")
    why = "the backend failed"
    if status in {401, 403}:
        why = "the backend refuses our key; see serve.backend_key_variable"
    elif 300 <= status < 400:
        why = "the backend sends us elsewhere; set serve.backend to its final address"
    return _broken(why)


def _broken(message: str) -> Problem:
    return Problem(502, message, "backend_failed", "api_error")


def _told(body: bytes) -> tuple[str, str, str]:
    """Return message, field and code of a refusal's body, each of them maybe empty."""
    try:
        found = json.loads(body.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return "", "", ""
    if not isinstance(found, dict):
        return "", "", ""
    if isinstance(details := found.get("detail"), list):  # FastAPI's; it also repeats the input, which we do not
        first = details[0] if details and isinstance(details[0], dict) else {}
        place = first.get("loc")
        parts = [str(part) for part in place if part != "body"] if isinstance(place, list) else []
        return _line(first.get("msg")), ".".join(parts)[:80], ""
    error = found.get("error", found)
    if not isinstance(error, dict):
        return _line(error), "", ""
    message = error.get("message") or error.get("detail")
    code = error.get("code")
    if not isinstance(code, str) or code.isdecimal():
        code = error.get("type") if CONTEXT.search(str(error.get("type"))) else ""
    return _line(message), _line(error.get("param"))[:80], _line(code)[:80]


def _line(text: object) -> str:
    if not isinstance(text, str):
        return ""
    return " ".join(text.split())[:LONGEST_MESSAGE].encode("utf-8", "replace").decode("utf-8")


def _wait_seconds(headers: Mapping[str, str], default: int) -> int:
    """Return Retry-After in whole seconds; dates and nonsense are the default."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        text = str(headers.get(name, "")).strip()
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
            return min(LONGEST_WAIT_SECONDS, max(1, math.ceil(float(text) / unit)))
    return default
