"""OpenAI's chat completions, for the official client unchanged: streamed or whole, in their envelope, with usage.

Nothing of these requests is stored. When the client goes, its answers are stopped at the next token. The model `sanbai`
always means the one in service; its own name does as long as it serves.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from sanbai.foundation.seeds import derive_seed
from sanbai.generation.streaming import Piece
from sanbai.serving.engine import Order, Outcome, ServedModel, context_exceeded
from sanbai.serving.house import House
from sanbai.serving.openai_schema import CompletionRequest
from sanbai.serving.problems import Problem
from sanbai.serving.routes import Call, Row
from sanbai.serving.sse import PING, data_text, stream_response
from sanbai.text.chat_template import encode_prompt

ALIAS = "sanbai"
KEEP_ALIVE_SECONDS = 15.0
DONE = "data: [DONE]\n\n"


@dataclass
class Choice:
    """One of the n answers, as it grows."""

    index: int
    tokens: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    outcome: Outcome | None = None

    @property
    def finish_reason(self) -> str:
        """Stop or length; an answer that was cut short from outside counts as stopped."""
        return (self.outcome.finish_reason if self.outcome else "") or "stop"


class Completion:
    """The n answers to one request; workers write to it, one coroutine reads."""

    def __init__(self, house: House, request: CompletionRequest, served: ServedModel, prompt: Sequence[int]) -> None:
        self.id = f"chatcmpl-{secrets.token_hex(12)}"
        self.created = int(time.time())
        self.served, self.request, self.prompt = served, request, prompt
        self.choices = [Choice(index) for index in range(request.n or 1)]
        self._news: asyncio.Queue[tuple[Choice, Piece | Outcome]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        sampling = request.sampling(house.settings.sampling, room=served.context - len(prompt))
        seed = secrets.randbits(62) if request.seed is None else request.seed
        self.orders = [
            Order(
                served,
                prompt,
                sampling,
                seed if choice.index == 0 else derive_seed(seed, "choice", choice.index),
                on_piece=lambda piece, choice=choice: self._tell(choice, piece),  # type: ignore[misc]
                on_end=lambda outcome, choice=choice: self._tell(choice, outcome),  # type: ignore[misc]
                stop_strings=request.stops,
            )
            for choice in self.choices
        ]

    def _tell(self, choice: Choice, news: Piece | Outcome) -> None:
        self._loop.call_soon_threadsafe(self._news.put_nowait, (choice, news))

    async def follow(self) -> AsyncIterator[tuple[Choice, Piece | Outcome] | None]:
        """Yield what happens until all choices have ended; None whenever nothing did for a while.

        However it is left, the answers are stopped.

        Raises:
            Problem: an answer failed.
        """
        try:
            while any(choice.outcome is None for choice in self.choices):
                try:
                    choice, news = await asyncio.wait_for(self._news.get(), KEEP_ALIVE_SECONDS)
                except TimeoutError:
                    yield None
                    continue
                self._take(choice, news)
                yield choice, news
        finally:
            for order in self.orders:
                order.stop()

    def _take(self, choice: Choice, news: Piece | Outcome) -> None:
        if isinstance(news, Outcome):
            choice.outcome = news
            if news.state in {"failed", "interrupted"}:
                raise Problem(500, f"the answer was {news.state}", "generation_failed", "api_error")
            return
        if news.token not in self.served.stop_ids:
            choice.tokens.append(news.token)
        choice.texts.append(news.text)
        if self.request.logprobs:
            choice.logprobs.append(self._logprob(news))

    def usage(self) -> dict[str, int]:
        """Count tokens as the tokenizer does: the template's in the prompt, the end of turn not in the answer."""
        completion = sum(len(choice.tokens) for choice in self.choices)
        return {
            "prompt_tokens": len(self.prompt),
            "completion_tokens": completion,
            "total_tokens": len(self.prompt) + completion,
        }

    def whole(self) -> dict[str, Any]:
        """Return the response that is not streamed."""
        choices = [
            {
                "index": choice.index,
                "message": {"role": "assistant", "content": "".join(choice.texts), "refusal": None},
                "logprobs": {"content": choice.logprobs, "refusal": None} if self.request.logprobs else None,
                "finish_reason": choice.finish_reason,
            }
            for choice in self.choices
        ]
        return self._frame("chat.completion", choices) | {"usage": self.usage()}

    def chunk(self, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> dict[str, Any]:
        """Return one chunk of the stream."""
        frame = self._frame("chat.completion.chunk", choices)
        wanted = self.request.stream_options is not None and self.request.stream_options.include_usage
        return frame | {"usage": usage} if wanted else frame

    def delta(self, choice: Choice, delta: dict[str, Any], piece: Piece | None = None) -> dict[str, Any]:
        """Return a chunk that adds something to one choice, or with an empty delta ends it."""
        logprobs = {"content": [self._logprob(piece)], "refusal": None} if piece and self.request.logprobs else None
        reason = None if delta or piece else choice.finish_reason
        return self.chunk([{"index": choice.index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}])

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.served.name,
            "system_fingerprint": self.served.artifact,
            "choices": choices,
        }

    def _logprob(self, piece: Piece) -> dict[str, Any]:
        spelled = self.served.tokenizer.token_bytes(piece.token)
        text = spelled.decode("utf-8", errors="replace")
        return {"token": text, "logprob": piece.logprob, "bytes": list(spelled), "top_logprobs": []}


async def complete(call: Call) -> Response:
    """Answer a chat completion."""
    request = call.body(CompletionRequest)
    completion = await _begin(call, request)
    if request.stream:
        return stream_response(_stream(completion))
    return await _whole(call.request, completion)


async def _begin(call: Call, request: CompletionRequest) -> Completion:
    """Check what pydantic cannot, encode the prompt and queue the answers."""
    house, served = call.house, call.house.engine.served
    if request.model not in {ALIAS, served.name}:
        raise _unknown_model(request.model, served.name)
    request.check_supported()
    if (request.n or 1) > house.settings.max_choices:
        raise Problem(400, f"n: wanted at most {house.settings.max_choices}", "invalid_value", param="n")
    if call.session is not None and any(one.role in {"system", "developer"} for one in request.messages):
        raise Problem(403, "system messages need an API key", "forbidden", "permission_error", param="messages")
    turns = [{"role": one.role, "content": one.text} for one in request.messages]
    prompt = await run_in_threadpool(encode_prompt, served.tokenizer, turns)
    if len(prompt) >= served.context:
        raise context_exceeded(served, len(prompt))
    completion = Completion(house, request, served, prompt)
    house.engine.submit(completion.orders)
    return completion


async def _whole(request: Request, completion: Completion) -> Response:
    """Wait for the answers, or for the client to leave."""

    async def read() -> None:
        async for _ in completion.follow():
            pass

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    reading, watching = asyncio.create_task(read()), asyncio.create_task(watch())
    try:
        await asyncio.wait({reading, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            raise ClientDisconnect
        reading.result()
    finally:
        for order in completion.orders:
            order.stop()
        for task in (reading, watching):
            task.cancel()
        await asyncio.gather(reading, watching, return_exceptions=True)
    return JSONResponse(completion.whole())


async def _stream(completion: Completion) -> AsyncIterator[str]:
    follower = completion.follow()
    try:
        for choice in completion.choices:
            yield data_text(completion.delta(choice, {"role": "assistant", "content": ""}))
        async for news in follower:
            if news is None:
                yield PING
            elif isinstance(news[1], Outcome):
                yield data_text(completion.delta(news[0], {}))
            elif news[1].text or completion.request.logprobs:
                yield data_text(completion.delta(news[0], {"content": news[1].text}, news[1]))
        if completion.request.stream_options is not None and completion.request.stream_options.include_usage:
            yield data_text(completion.chunk([], completion.usage()))
        yield DONE
    except Problem as problem:
        yield data_text(problem.envelope())
    finally:
        for order in completion.orders:
            order.stop()


def list_models(call: Call) -> dict[str, Any]:
    """List what can be asked: the model in service, by both its names."""
    served = call.house.engine.served
    return {"object": "list", "data": [_model(served, name) for name in (ALIAS, served.name)]}


def show_model(call: Call) -> dict[str, Any]:
    """Describe one of them."""
    served, name = call.house.engine.served, str(call.request.path_params["id"])
    if name not in {ALIAS, served.name}:
        raise _unknown_model(name, served.name)
    return _model(served, name)


def _model(served: ServedModel, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "sanbai", "root": served.name}


def _unknown_model(name: str, served: str) -> Problem:
    return Problem(404, f"the model {name[:80]!r} is not in service; {served!r} is", "model_not_found", param="model")


ROWS = (
    Row("POST", "/v1/chat/completions", "user", complete, CompletionRequest),
    Row("GET", "/v1/models", "user", list_models),
    Row("GET", "/v1/models/{id:path}", "user", show_model),
)
