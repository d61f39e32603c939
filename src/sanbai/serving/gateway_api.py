"""The API for programs before a backend: requests are checked as ever and sent on, answers come back in our words.

What OpenAI's protocol knows and our schema checks is passed on, nothing else: a field that our schema has not may mean
anything to a server behind us. Defaults are ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from sanbai.serving.backend import broken
from sanbai.serving.dialect import Answers, Piece, estimated_usage, pieces_of, usage_of
from sanbai.serving.embeddings_api import EmbeddingRequest
from sanbai.serving.gateway import Event, Feed, Gateway
from sanbai.serving.openai_schema import ALIAS, ChatRequest, SampledRequest, TextRequest, each_prompt
from sanbai.serving.problems import Problem, not_found
from sanbai.serving.routes import Call, Row
from sanbai.serving.sse import DONE, HEADERS, PING, data_text
from sanbai.serving.text_api import DetokenizeRequest, TokenizeRequest

Found = TypeVar("Found")


class _Frame:
    """What the parts of one response share; chat and texts differ in where an answer's words stand."""

    def __init__(self, gateway: Gateway, request: SampledRequest, *, num_choices: int) -> None:
        self.gateway, self.request, self.num_choices = gateway, request, num_choices
        self.is_chat = isinstance(request, ChatRequest)
        self._id = f"{'chatcmpl' if self.is_chat else 'cmpl'}-{secrets.token_hex(12)}"
        self._created = int(time.time())

    @property
    def wants_usage(self) -> bool:
        return self.request.stream_options is not None and self.request.stream_options.include_usage

    def whole(self, found: Event) -> Event:
        """Return a whole answer of the backend as ours.

        Raises:
            Problem: 502, it is none.
        """
        pieces = {piece.index: piece for piece in pieces_of(found, num_choices=self.num_choices)}
        if len(pieces) < self.num_choices:
            raise broken("the backend gave fewer answers than were asked for")
        choices = [self._choice(pieces[index]) for index in sorted(pieces)]
        said = "".join(piece.text + str(piece.delta.get("content", "")) for piece in pieces.values())
        usage = usage_of(found) or estimated_usage(self._asked(), said)
        self.gateway.count(usage, [choice["finish_reason"] for choice in choices])
        kind = "chat.completion" if self.is_chat else "text_completion"
        return self._around(kind, choices) | {"usage": usage}

    async def stream(self, feed: Feed) -> AsyncIterator[str]:
        """Yield a stream of the backend as ours; failures become its last event."""
        answers = Answers(self.num_choices)
        try:
            if self.is_chat:
                for index in range(self.num_choices):
                    yield self._part(index, Piece(index, delta={"role": "assistant", "content": ""}))
            async for news in feed.pieces(answers):
                if news is None:
                    yield PING
                for piece in news or ():
                    if piece.delta or piece.text or piece.logprobs:
                        yield self._part(piece.index, piece)
                    if piece.finish_reason:
                        yield self._part(piece.index, Piece(piece.index), piece.finish_reason)
            usage = answers.usage or estimated_usage(self._asked(), answers.text)
            self.gateway.count(usage, answers.finish_reasons)
            if self.wants_usage:
                yield data_text(self._around(self._kind, []) | {"usage": usage})
            yield DONE
        except Problem as problem:
            yield data_text(problem.envelope())

    @property
    def _kind(self) -> str:
        return "chat.completion.chunk" if self.is_chat else "text_completion"

    def _part(self, index: int, piece: Piece, reason: str | None = None) -> str:
        said = {"delta": piece.delta} if self.is_chat else {"text": piece.text}
        choice = {"index": index, **said, "logprobs": piece.logprobs, "finish_reason": reason}
        event = self._around(self._kind, [choice])
        return data_text(event | {"usage": None} if self.wants_usage else event)

    def _choice(self, piece: Piece) -> Event:
        empty = {"role": "assistant", "content": None if "tool_calls" in piece.delta else "", "refusal": None}
        said = {"message": empty | piece.delta} if self.is_chat else {"text": piece.text}
        return {
            "index": piece.index,
            **said,
            "logprobs": piece.logprobs,
            "finish_reason": piece.finish_reason or "stop",
        }

    def _around(self, kind: str, choices: list[Event]) -> Event:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self.gateway.served_name,
            "system_fingerprint": None,
            "choices": choices,
        }

    def _asked(self) -> str:
        """Return what was asked as one text, to be measured and never kept."""
        if isinstance(self.request, ChatRequest):
            return "\n".join(message.text for message in self.request.messages)
        assert isinstance(self.request, TextRequest)
        prompts = each_prompt(self.request.prompt)
        return "".join(each if isinstance(each, str) else "xxxx" * len(each) for each in prompts)


class _Stream(StreamingResponse):
    """A stream that gives back what it holds, however it ends."""

    def __init__(self, texts: AsyncIterator[str], held: contextlib.AsyncExitStack) -> None:
        super().__init__(texts, media_type="text/event-stream", headers=HEADERS)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            await super().__call__(scope, receive, send)


async def complete_chat(call: Call) -> Response:
    """Answer a chat completion."""
    request = call.body(ChatRequest)
    request.check_supported()
    if call.session is not None and any(one.role in {"system", "developer"} for one in request.messages):
        raise Problem(403, "system messages need an API key", "forbidden", "permission_error", param="messages")
    body = _body(call, request)
    limit = request.max_completion_tokens or request.max_tokens or call.house.settings.sampling.max_new_tokens
    body.pop("max_completion_tokens", None)
    return await _complete(call, request, body | {"max_tokens": limit}, "/chat/completions", num_prompts=1)


async def complete_text(call: Call) -> Response:
    """Continue texts."""
    request = call.body(TextRequest)
    request.check_supported()
    num_prompts = len(each_prompt(request.prompt))
    if not num_prompts:
        raise Problem(400, "prompt: wanted at least one", "invalid_value", param="prompt")
    body = _body(call, request) | {"max_tokens": request.limit}
    return await _complete(call, request, body, "/completions", num_prompts=num_prompts)


async def _complete(call: Call, request: SampledRequest, body: Event, path: str, *, num_prompts: int) -> Response:
    gateway, num_choices = _gateway(call), num_prompts * (request.n or 1)
    _check_model(gateway, request.model)
    settings = call.house.settings
    if (request.n or 1) > settings.max_choices:
        raise Problem(400, f"n: wanted at most {settings.max_choices}", "invalid_value", param="n")
    if num_choices > (room := settings.max_running + settings.max_waiting):
        raise Problem(400, f"prompt: wanted at most {room} answers in all", "invalid_value", param="prompt")
    frame = _Frame(gateway, request, num_choices=num_choices)
    async with contextlib.AsyncExitStack() as held:
        held.enter_context(gateway.room(num_choices))
        if not request.stream:
            return JSONResponse(frame.whole(await _unless_gone(call.request, gateway.ask(path, body))))
        asked = body | {"stream": True, "stream_options": {"include_usage": True}}
        feed = await _unless_gone(call.request, gateway.open(path, asked))  # a refusal still has its status
        held.push_async_callback(feed.close)
        return _Stream(frame.stream(feed), held.pop_all())


def _body(call: Call, request: SampledRequest) -> Event:
    """Return a request's checked fields, with our defaults."""
    body = request.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
    for name in ("stream", "stream_options"):
        body.pop(name, None)
    default = call.house.settings.sampling
    return {"temperature": default.temperature, "top_p": default.top_p} | body | {"model": _gateway(call).served_name}


async def embed(call: Call) -> Response:
    """Return the backend's vectors for texts."""
    request = call.body(EmbeddingRequest)
    found = await _asked(call, "/embeddings", request.model, request.model_dump(mode="json", exclude_unset=True))
    if not isinstance(found.get("data"), list):
        raise broken("the backend gave no vectors")
    name = _gateway(call).served_name
    return JSONResponse({"object": "list", "data": found["data"], "model": name, "usage": found.get("usage")})


async def tokenize(call: Call) -> Response:
    """Return the token ids of a text, or of messages, as the backend counts them."""
    request = call.body(TokenizeRequest)
    body = request.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    if request.prompt is not None:
        body |= {"content": request.prompt, "add_special_tokens": False}  # llama.cpp's name for it; vLLM adds one
    found = await _asked(call, "../tokenize", request.model, body)
    tokens = found.get("tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
        raise broken("the backend gave no tokens")
    return JSONResponse({"tokens": tokens, "count": len(tokens), "max_model_len": found.get("max_model_len")})


async def detokenize(call: Call) -> Response:
    """Return the text of token ids."""
    request = call.body(DetokenizeRequest)
    found = await _asked(call, "../detokenize", request.model, {"tokens": request.tokens})
    text = found.get("prompt", found.get("content"))
    if not isinstance(text, str):
        raise broken("the backend gave no text")
    return JSONResponse({"prompt": text})


async def tokenizer_info(_: Call) -> Response:
    """Say that the backend's tokenizer is not described here."""
    raise not_found("a backend's tokenizer is not described; /tokenize and /detokenize ask it")


def list_models(call: Call) -> Event:
    """List the model that answers, by both its names."""
    name = _gateway(call).served_name
    return {"object": "list", "data": [_model(each, name) for each in dict.fromkeys((ALIAS, name)) if name]}


def show_model(call: Call) -> Event:
    """Describe one of them."""
    name = str(call.request.path_params["id"])
    _check_model(_gateway(call), name)
    return _model(name, _gateway(call).served_name)


def _model(name: str, root: str) -> Event:
    return {"id": name, "object": "model", "created": 0, "owned_by": "sanbai", "root": root}


async def _asked(call: Call, path: str, model: str, body: Event) -> Event:
    gateway = _gateway(call)
    _check_model(gateway, model)
    with gateway.room(1):
        return await _unless_gone(call.request, gateway.ask(path, body | {"model": gateway.served_name}))


def _gateway(call: Call) -> Gateway:
    assert call.house.gateway is not None
    return call.house.gateway


def _check_model(gateway: Gateway, name: str) -> None:
    gateway.check_room(0)
    if name not in {ALIAS, gateway.served_name}:
        message = f"the model {name[:80]!r} is not in service; {gateway.served_name!r} is"
        raise Problem(404, message, "model_not_found", param="model")


async def _unless_gone(request: HttpRequest, work: Coroutine[Any, Any, Found]) -> Found:
    """Wait for work, which ends when the client leaves.

    Raises:
        ClientDisconnect: it left.
    """

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, watching = asyncio.create_task(work), asyncio.create_task(watch())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


ROWS: Sequence[Row] = (
    Row("POST", "/v1/chat/completions", "user", complete_chat, ChatRequest),
    Row("POST", "/v1/completions", "user", complete_text, TextRequest),
    Row("POST", "/v1/embeddings", "user", embed, EmbeddingRequest),
    Row("POST", "/tokenize", "user", tokenize, TokenizeRequest),
    Row("POST", "/detokenize", "user", detokenize, DetokenizeRequest),
    Row("GET", "/tokenizer_info", "user", tokenizer_info),
    Row("GET", "/v1/models", "user", list_models),
    Row("GET", "/v1/models/{id:path}", "user", show_model),
)
