"""OpenAI's models and chat completions, for the official client unchanged: streamed or whole, with usage.

The model `sanbai` always means the one in service; its own name does as long as it serves.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from sanbai.foundation.seeds import derive_seed
from sanbai.generation.grammar import Grammar
from sanbai.generation.request import NewToken, Request, TokenMask, TopLogprobs
from sanbai.generation.sampling import Sampling
from sanbai.serving.answers import Answers, Choice
from sanbai.serving.engine import Outcome, ServedModel, check_length, context_exceeded
from sanbai.serving.openai_schema import ALIAS, ChatMessage, ChatRequest, SampledRequest
from sanbai.serving.problems import Problem
from sanbai.serving.routes import Call, Row
from sanbai.serving.sse import DONE, PING, data_text, stream_response
from sanbai.serving.tool_calls import CallReader, Toolbox, finish_reason, joined, turns_of
from sanbai.text.chat_template import Tools, encode_prompt


class Frame:
    """What all parts of one response share: whose answers, id, time, model."""

    def __init__(self, answers: Answers, request: SampledRequest, *, prefix: str) -> None:
        self.answers, self.request = answers, request
        self._id = f"{prefix}-{secrets.token_hex(12)}"
        self._created = int(time.time())

    def around(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a response, or a part of one, with its choices."""
        served = self.answers.served
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": served.name,
            "system_fingerprint": served.artifact,
            "choices": choices,
        }

    def part(self, kind: str, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> str:
        """Return one event of a stream; where usage was asked for, each names it, empty until the last."""
        frame = self.around(kind, choices)
        return data_text(frame | {"usage": usage} if self.wants_usage else frame)

    @property
    def wants_usage(self) -> bool:
        """Whether the stream ends with the count of tokens."""
        return self.request.stream_options is not None and self.request.stream_options.include_usage


async def complete(call: Call) -> Response:
    """Answer a chat completion."""
    request = call.body(ChatRequest)
    served = served_as(call, request.model)
    request.check_supported()
    if call.session is not None and any(one.role in {"system", "developer"} for one in request.messages):
        raise Problem(403, "system messages need an API key", "forbidden", "permission_error", param="messages")
    toolbox = Toolbox.of(request)
    if toolbox is not None and call.session is not None:
        raise Problem(403, "tools need an API key", "forbidden", "permission_error", param="tools")
    marker = None if toolbox is None else toolbox.marker(served)
    prompt = await read_messages(served, request.messages, tools=toolbox.definitions if toolbox else ())
    sampling = request.sampling(call.house.settings.sampling, room=served.context - len(prompt))
    asked = engine_request(
        call,
        request,
        served,
        prompt,
        sampling,
        mask=await _mask(call, request, served, toolbox),
        top_logprobs=request.top_logprobs or 0,
    )
    frame = Frame(Answers(call.house.engine, served, [asked]), request, prefix="chatcmpl")
    if request.stream:
        return stream_response(_stream(frame, marker, wants_logprobs=bool(request.logprobs)), on_end=frame.answers.stop)
    await frame.answers.finish(call.request)
    choices = [
        _whole(frame.answers, choice, marker, wants_logprobs=bool(request.logprobs)) for choice in frame.answers.choices
    ]
    return JSONResponse(frame.around("chat.completion", choices) | {"usage": frame.answers.usage()})


async def read_messages(served: ServedModel, messages: Sequence[ChatMessage], *, tools: Tools = ()) -> list[int]:
    """Return the prompt that messages make.

    Raises:
        Problem: they cannot stand so, or leave no room for an answer.
        DataError: the model's chat template has no such role.
    """
    turns = turns_of(messages)
    check_length(served, sum(len(one.text) for one in messages), param="messages")
    prompt = await run_in_threadpool(encode_prompt, served.tokenizer, turns, tools=tools)
    if len(prompt) >= served.context:
        raise context_exceeded(served, len(prompt))
    return prompt


async def _mask(call: Call, request: ChatRequest, served: ServedModel, toolbox: Toolbox | None) -> TokenMask | None:
    """Return what form the answers have.

    Raises:
        Problem: as `Grammars.of_form`.
    """
    text = await grammar_of(call, request, served)
    if toolbox is None:
        return None if text is None else text.mask()
    calls = await call.house.grammars.of_calls(served, toolbox.schemas) if toolbox.schemas else None
    return toolbox.mask(served, calls, text)


def served_as(call: Call, name: str) -> ServedModel:
    """Return the model in service if it goes by this name.

    Raises:
        Problem: 404, it does not; 503, none is in service.
    """
    served = call.house.engine.served
    if name not in {ALIAS, served.name}:
        raise _unknown_model(name, served.name)
    return served


def engine_request(
    call: Call,
    request: SampledRequest,
    served: ServedModel,
    prompt: Sequence[int],
    sampling: Sampling,
    *,
    mask: TokenMask | None,
    top_logprobs: int = 0,
    prompt_logprobs: bool = False,
    place: int = 0,
) -> Request:
    """Return what the engine is asked for one prompt.

    Args:
        call: who asks.
        request: how to draw and how often.
        served: the model.
        prompt: its token ids.
        sampling: resolved.
        mask: what the answers may be, if they have a form.
        top_logprobs: likeliest tokens reported beside each drawn one.
        prompt_logprobs: whether the prompt's own are.
        place: of the prompt among the request's; each has other seeds.

    Raises:
        Problem: more answers than allowed, or a bias on a token that the model lacks.
    """
    settings, number = call.house.settings, request.n or 1
    most = min(settings.max_choices, settings.max_running + settings.max_waiting)
    if number > most:
        raise Problem(400, f"n: wanted at most {most}", "invalid_value", param="n")
    vocab_size = served.model.config.vocab_size
    shaping = request.shaping()
    if any(token >= vocab_size for token in shaping.logit_bias):
        raise Problem(
            400, f"logit_bias: wanted token ids from 0 to {vocab_size - 1}", "invalid_value", param="logit_bias"
        )
    seed = secrets.randbits(62) if request.seed is None else request.seed
    seed = seed if place == 0 else derive_seed(seed, "prompt", place)
    return Request(
        prompt=prompt,
        sampling=sampling,
        seeds=[seed if index == 0 else derive_seed(seed, "choice", index) for index in range(number)],
        stop_ids=served.stop_ids,
        stop_strings=request.stops,
        shaping=shaping,
        mask=mask,
        top_logprobs=min(top_logprobs, vocab_size),
        prompt_logprobs=prompt_logprobs,
        tenant=call.account.id,
        remember=settings.prefix_cache,
    )


async def grammar_of(call: Call, request: SampledRequest, served: ServedModel) -> Grammar | None:
    """Return what form the answers must have, if the request says so.

    Raises:
        Problem: as `Grammars.of_form`.
    """
    constraint = request.constraint()
    if constraint is None:
        return None
    return await call.house.grammars.of_form(served, constraint.rule, param=constraint.param)


def token_text(served: ServedModel, token: int) -> str:
    """Return a token as text; what is no whole character alone has U+FFFD in its place."""
    return served.tokenizer.token_bytes(token).decode("utf-8", errors="replace")


def _logprob(served: ServedModel, token: int, logprob: float, top: TopLogprobs | None = None) -> dict[str, Any]:
    spelled = served.tokenizer.token_bytes(token)
    shown = {"token": token_text(served, token), "logprob": logprob, "bytes": list(spelled)}
    return shown if top is None else shown | {"top_logprobs": [_logprob(served, *pair) for pair in top]}


def _logprobs(served: ServedModel, news: Sequence[NewToken]) -> dict[str, Any]:
    return {"content": [_logprob(served, new.token, new.logprob, new.top) for new in news], "refusal": None}


def _whole(answers: Answers, choice: Choice, marker: int | None, *, wants_logprobs: bool) -> dict[str, Any]:
    reader = CallReader(answers.served.tokenizer, marker)
    deltas = [delta for new in choice.news for delta in reader.push(new)]
    return {
        "index": choice.index,
        "message": joined([*deltas, *reader.finish()]),
        "logprobs": _logprobs(answers.served, choice.news) if wants_logprobs else None,
        "finish_reason": finish_reason(choice.finish_reason, reader),
    }


async def _stream(frame: Frame, marker: int | None, *, wants_logprobs: bool) -> AsyncIterator[str]:
    answers = frame.answers
    readers = [CallReader(answers.served.tokenizer, marker) for _ in answers.choices]

    def part(choice: Choice, delta: dict[str, Any], new: NewToken | None = None, reason: str | None = None) -> str:
        logprobs = _logprobs(answers.served, [new]) if new and wants_logprobs else None
        return frame.part(
            "chat.completion.chunk",
            [{"index": choice.index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}],
        )

    def parts(choice: Choice, news: NewToken | Outcome) -> list[str]:
        reader = readers[choice.index]
        if isinstance(news, Outcome):
            last = [part(choice, delta) for delta in reader.finish()]
            return [*last, part(choice, {}, reason=finish_reason(choice.finish_reason, reader))]
        deltas = reader.push(news) or ([{"content": ""}] if wants_logprobs else [])
        return [part(choice, delta, None if number else news) for number, delta in enumerate(deltas)]

    try:
        for choice in answers.choices:
            yield part(choice, {"role": "assistant", "content": ""})
        async for news in answers.follow():
            if text := "".join(text for told in news for text in parts(*told)) if news else PING:
                yield text
        if frame.wants_usage:
            yield frame.part("chat.completion.chunk", [], answers.usage())
        yield DONE
    except Problem as problem:
        yield data_text(problem.envelope())
    finally:
        answers.stop()


def list_models(call: Call) -> dict[str, Any]:
    """List what can be asked: the model in service, by both its names."""
    served = call.house.engine.served
    return {"object": "list", "data": [_model(served, name) for name in (ALIAS, served.name)]}


def show_model(call: Call) -> dict[str, Any]:
    """Describe one of them."""
    name = str(call.request.path_params["id"])
    return _model(served_as(call, name), name)


def _model(served: ServedModel, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "sanbai", "root": served.name}


def _unknown_model(name: str, served: str) -> Problem:
    return Problem(404, f"the model {name[:80]!r} is not in service; {served!r} is", "model_not_found", param="model")


ROWS = (
    Row("POST", "/v1/chat/completions", "user", complete, ChatRequest),
    Row("GET", "/v1/models", "user", list_models),
    Row("GET", "/v1/models/{id:path}", "user", show_model),
)
