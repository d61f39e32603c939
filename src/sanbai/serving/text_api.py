"""Texts and tokens for programs: completions as OpenAI's older API has them, and the tokenizer's own routes.

A text to be continued is read as a document from its beginning, as in training: the mark that begins one comes before
its tokens. Token ids are read as they are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import accumulate
from typing import Annotated, Any

from pydantic import BaseModel, Field, model_validator
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from sanbai.generation.grammar import Grammar
from sanbai.generation.request import NewToken, Request, TopLogprobs
from sanbai.serving.answers import Answers, Choice
from sanbai.serving.engine import Outcome, ServedModel, check_length, context_exceeded
from sanbai.serving.openai_api import Frame, engine_request, grammar_of, served_as
from sanbai.serving.openai_schema import ALIAS, MOST_TOOLS, ChatMessage, FirstError, Ids, TextRequest, Tool, each_prompt
from sanbai.serving.problems import Problem
from sanbai.serving.routes import Call, PlainText, Row
from sanbai.serving.sse import DONE, PING, data_text, stream_response
from sanbai.serving.tool_calls import turns_of
from sanbai.text.chat_template import encode_prompt
from sanbai.text.stream import TextStream

KIND = "text_completion"


class TokenizeRequest(BaseModel):
    """The body of POST /tokenize: a text, or messages."""

    model: PlainText = ALIAS
    prompt: PlainText | None = None
    messages: Annotated[list[ChatMessage], FirstError()] | None = Field(default=None, min_length=1, max_length=2000)
    tools: Annotated[list[Tool], FirstError()] | None = Field(default=None, max_length=MOST_TOOLS)

    @model_validator(mode="after")
    def _check_one(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("wanted prompt or messages, one of them")
        return self


class DetokenizeRequest(BaseModel):
    """The body of POST /detokenize."""

    model: PlainText = ALIAS
    tokens: Ids = Field(max_length=1_000_000)


async def complete(call: Call) -> Response:
    """Continue texts."""
    request = call.body(TextRequest)
    served = served_as(call, request.model)
    request.check_supported()
    settings = call.house.settings
    room = settings.max_running + settings.max_waiting
    given = each_prompt(request.prompt)
    if len(given) * (request.n or 1) > room:
        raise Problem(400, f"prompt: wanted at most {room} answers in all", "invalid_value", param="prompt")
    prompts = [await run_in_threadpool(encode_text, served, prompt, param="prompt") for prompt in given]
    grammar = await grammar_of(call, request, served)
    asked = [_ask(call, request, served, prompt, grammar, place) for place, prompt in enumerate(prompts)]
    if not asked:
        raise Problem(400, "prompt: wanted at least one", "invalid_value", param="prompt")
    frame = Frame(Answers(call.house.engine, served, asked), request, prefix="cmpl")
    if request.stream:
        return stream_response(_stream(frame, request), on_end=frame.answers.stop)
    await frame.answers.finish(call.request)
    choices = [_whole(frame.answers, choice, request) for choice in frame.answers.choices]
    return JSONResponse(frame.around(KIND, choices) | {"usage": _usage(frame.answers, request)})


def encode_text(served: ServedModel, text: str | Sequence[int], *, param: str) -> list[int]:
    """Return a text's token ids, the mark of a document's beginning before them; ids are returned as they are.

    Args:
        served: the model.
        text: or its token ids.
        param: the request's field, for refusals.

    Raises:
        Problem: no token, an id that the model lacks, or more than the context holds.
    """
    tokenizer, vocab_size = served.tokenizer, served.model.config.vocab_size
    if isinstance(text, str):
        check_length(served, len(text), param=param)
    ids = [tokenizer.reserved.end_of_text, *tokenizer.encode(text)] if isinstance(text, str) else list(text)
    if not ids:
        raise Problem(400, f"{param}: wanted at least one token", "invalid_value", param=param)
    if not all(0 <= id_ < vocab_size for id_ in ids):
        raise Problem(400, f"{param}: wanted token ids from 0 to {vocab_size - 1}", "invalid_value", param=param)
    if len(ids) >= served.context:
        raise context_exceeded(served, len(ids), param=param)
    return ids


def _ask(
    call: Call, request: TextRequest, served: ServedModel, prompt: list[int], grammar: Grammar | None, place: int
) -> Request:
    limit = min(max(request.limit, 1), served.context - len(prompt))  # without any, one is drawn and dropped
    return engine_request(
        call,
        request,
        served,
        prompt,
        request.drawn(call.house.settings.sampling, limit=limit),
        mask=None if grammar is None else grammar.mask(),
        top_logprobs=request.logprobs or 0,
        prompt_logprobs=bool(request.echo) and request.logprobs is not None,
        place=place,
    )


def _usage(answers: Answers, request: TextRequest) -> dict[str, int]:
    usage = answers.usage()
    if request.limit == 0:
        usage |= {"completion_tokens": 0, "total_tokens": usage["prompt_tokens"]}
    return usage


def _whole(answers: Answers, choice: Choice, request: TextRequest) -> dict[str, Any]:
    said = "" if request.limit == 0 else choice.text
    before = _prompt_text(answers.served, choice.request.prompt) if request.echo else ""
    return {
        "index": choice.index,
        "text": before + said,
        "logprobs": _logprobs(answers, choice, request),
        "finish_reason": "length" if request.limit == 0 else choice.finish_reason,
    }


def _prompt_text(served: ServedModel, prompt: Sequence[int]) -> str:
    return served.tokenizer.decode(prompt)


def _logprobs(answers: Answers, choice: Choice, request: TextRequest) -> dict[str, Any] | None:
    """Return the four parallel lists of the older API: tokens, their log-probabilities, the likeliest, their places."""
    if request.logprobs is None:
        return None
    rows: list[tuple[int, float | None, TopLogprobs | None]] = []
    if request.echo:
        first = answers.choices[choice.index - choice.index % len(choice.request.seeds)]
        assert first.prompt is not None
        ids = choice.request.prompt
        rows = [(ids[0], None, None), *zip(ids[1:], first.prompt.logprobs, first.prompt.top, strict=True)]
    if request.limit > 0:
        rows += [(new.token, new.logprob, new.top) for new in answers.tokens_of(choice)]
    served, stream = answers.served, TextStream(answers.served.tokenizer)
    offsets = [0, *accumulate(len(stream.push(token)) for token, _, _ in rows[:-1])]
    return {
        "tokens": [_key(served, token) for token, _, _ in rows],
        "token_logprobs": [logprob for _, logprob, _ in rows],
        "top_logprobs": [
            None if top is None else {_key(served, token): logprob for token, logprob in top} for _, _, top in rows
        ],
        "text_offset": offsets[: len(rows)],
    }


def _key(served: ServedModel, token: int) -> str:
    """Return a token's text, or the bytes of one that is no whole character: keys must differ."""
    spelled = served.tokenizer.token_bytes(token)
    try:
        return spelled.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)


async def _stream(frame: Frame, request: TextRequest) -> AsyncIterator[str]:
    answers = frame.answers

    def part(choice: Choice, text: str, logprobs: dict[str, Any] | None = None, reason: str | None = None) -> str:
        return frame.part(KIND, [{"index": choice.index, "text": text, "logprobs": logprobs, "finish_reason": reason}])

    def tell(choice: Choice, new: NewToken | Outcome) -> str:
        if isinstance(new, Outcome):
            return part(choice, "", reason="length" if request.limit == 0 else choice.finish_reason)
        if not request.limit or not (new.text or request.logprobs is not None):
            return ""
        alone = Choice(choice.index, choice.request, [new])
        return part(choice, new.text, _logprobs(answers, alone, request))

    try:
        if request.echo:
            for choice in answers.choices:
                yield part(choice, _prompt_text(answers.served, choice.request.prompt))
        async for news in answers.follow():
            if text := "".join(tell(*told) for told in news) if news else PING:
                yield text
        if frame.wants_usage:
            yield frame.part(KIND, [], _usage(answers, request))
        yield DONE
    except Problem as problem:
        yield data_text(problem.envelope())
    finally:
        answers.stop()


def tokenize(call: Call) -> dict[str, Any]:
    """Return the token ids of a text, or of messages as the model would read them.

    A text that is a reserved token's name and nothing else is that token: programs that were told a name ask for its
    id so. Within a text no name is more than its characters.
    """
    request = call.body(TokenizeRequest)
    served = served_as(call, request.model)
    if request.messages is not None:
        tools = [tool.function.told() for tool in request.tools or []]
        ids = encode_prompt(served.tokenizer, turns_of(request.messages), tools=tools)
    else:
        marks = {_mark(served, id_): id_ for id_ in served.tokenizer.reserved_ids}
        text = request.prompt or ""
        ids = [marks[text]] if text in marks else served.tokenizer.encode(text)
    return {"tokens": ids, "count": len(ids), "max_model_len": served.context}


def detokenize(call: Call) -> dict[str, Any]:
    """Return the text of token ids; reserved ones have none."""
    request = call.body(DetokenizeRequest)
    served = served_as(call, request.model)
    if not all(0 <= id_ < served.model.config.vocab_size for id_ in request.tokens):
        last = served.model.config.vocab_size - 1
        raise Problem(400, f"tokens: wanted ids from 0 to {last}", "invalid_value", param="tokens")
    return {"prompt": served.tokenizer.decode(request.tokens)}


def _mark(served: ServedModel, id_: int) -> str:
    return served.tokenizer.token_bytes(id_).decode("utf-8", errors="replace")


def tokenizer_info(call: Call) -> dict[str, Any]:
    """Describe the tokenizer, with the names of its marks, so that others need no copy of it.

    The mark between documents both begins and ends one: lm_eval takes the end where the beginning's id is 0. The chat
    template is not told: who fills it in as a text would send roles that are text. Send messages instead.
    """
    served = call.house.engine.served
    tokenizer, reserved = served.tokenizer, served.tokenizer.reserved
    return {
        "bos_token": _mark(served, reserved.end_of_text),
        "eos_token": _mark(served, reserved.end_of_text),
        "pad_token": _mark(served, reserved.pad),
        "chat_template": None,
        "model": served.name,
        "vocab_size": tokenizer.vocab_size,
        "max_model_len": served.context,
        "reserved_ids": sorted(tokenizer.reserved_ids),
        "stop_ids": sorted(served.stop_ids),
    }


ROWS = (
    Row("POST", "/v1/completions", "user", complete, TextRequest),
    Row("POST", "/tokenize", "user", tokenize, TokenizeRequest),
    Row("POST", "/detokenize", "user", detokenize, DetokenizeRequest),
    Row("GET", "/tokenizer_info", "user", tokenizer_info),
)
