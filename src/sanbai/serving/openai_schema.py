"""Requests of completions, as OpenAI's specification has them: checked ranges, unknown fields ignored.

What is not built is refused with its name where it would change the answer; nothing is dropped in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Discriminator, FailFast, Field, Tag, field_validator, model_validator

from sanbai.generation.request import Shaping
from sanbai.generation.sampling import Sampling
from sanbai.serving.problems import Problem
from sanbai.serving.routes import PlainText

#: The model in service, whichever that is.
ALIAS = "sanbai"
LONGEST_STOP = 1000
MOST_TOOLS = 128
MOST_BIASES = 300
DEFAULT_MAX_TOKENS = 16
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}

#: A token id as JSON's objects name it.
TokenId = Annotated[int, Field(ge=0, le=2**31)]


def _kind_of_prompt(prompt: object) -> str:
    if not isinstance(prompt, list):
        return "text"
    first = prompt[0] if prompt else ""
    return "ids" if isinstance(first, int) else "lists" if isinstance(first, list) else "texts"


class FirstError(FailFast):
    """A list of a million wrong items has one error, not a million."""

    __hash__ = object.__hash__  # what stands in a union must have one


Texts = Annotated[list[PlainText], FirstError()]
Ids = Annotated[list[int], FirstError()]

#: One or several texts, each as it is or as token ids.
Prompt = Annotated[
    Annotated[PlainText, Tag("text")]
    | Annotated[Texts, Tag("texts")]
    | Annotated[Ids, Tag("ids")]
    | Annotated[list[Ids], FirstError(), Tag("lists")],
    Discriminator(_kind_of_prompt),
]


def each_prompt(prompt: Prompt) -> list[str] | list[list[int]]:
    """Return the texts one by one."""
    if isinstance(prompt, str):
        return [prompt]
    if prompt and isinstance(prompt[0], int):
        return cast("list[list[int]]", [prompt])
    return cast("list[str] | list[list[int]]", prompt)


class TextPart(BaseModel):
    """One part of a message's content; only text can be read."""

    type: Literal["text"]
    text: PlainText


FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class CalledFunction(BaseModel):
    """What a call names: the function, and its arguments as JSON in a text."""

    name: FunctionName
    arguments: PlainText


class ToolCall(BaseModel):
    """A call that an assistant has made."""

    id: PlainText = Field(min_length=1, max_length=200)
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(BaseModel):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: PlainText | Annotated[list[TextPart], FirstError()] | None = None
    tool_calls: Annotated[list[ToolCall], FirstError()] | None = Field(default=None, max_length=MOST_TOOLS)
    tool_call_id: PlainText | None = Field(default=None, max_length=200)

    @property
    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class FunctionDefinition(BaseModel):
    """A function that the model may call, its parameters as a JSON schema; without one it has none."""

    name: FunctionName
    description: PlainText | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    """Arguments fit the schema either way."""

    @field_validator("parameters")
    @classmethod
    def _check_object(cls, parameters: dict[str, Any] | None) -> dict[str, Any] | None:
        if parameters is not None and parameters.get("type", "object") != "object":
            raise ValueError('wanted a schema of an object, "type": "object"')
        return parameters

    def schema_of_arguments(self) -> dict[str, Any]:
        """Return what the arguments keep to."""
        if self.parameters is None:
            return {"type": "object", "properties": {}, "additionalProperties": False}
        return {"type": "object"} | self.parameters

    def told(self) -> dict[str, Any]:
        """Return what the model is told of it."""
        return self.model_dump(include={"name", "description", "parameters"}, exclude_none=True)


class Tool(BaseModel):
    """A tool; only functions can be called."""

    type: Literal["function"]
    function: FunctionDefinition


class FunctionReference(BaseModel):
    """A function by its name."""

    name: FunctionName


class NamedTool(BaseModel):
    """The one function to be called."""

    type: Literal["function"]
    function: FunctionReference


def _kind_of_choice(choice: object) -> str:
    return "mode" if isinstance(choice, str) else "function"


#: Whether tools may or must be called, and which.
ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("mode")] | Annotated[NamedTool, Tag("function")],
    Discriminator(_kind_of_choice),
]


class StreamOptions(BaseModel):
    """What else a stream should say."""

    include_usage: bool = False


class NamedSchema(BaseModel):
    """A JSON schema as OpenAI wraps it."""

    name: PlainText = Field(min_length=1, max_length=64)
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """What form the answer has: any text, any JSON object, or JSON by a schema."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: NamedSchema | None = None

    @model_validator(mode="after")
    def _check_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError('type "json_schema" and json_schema go together')
        return self


class StructuredOutputs(BaseModel):
    """The same in other servers' words; one of the two."""

    json_: dict[str, Any] | None = Field(default=None, alias="json")
    regex: PlainText | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.json_ is None) == (self.regex is None):
            raise ValueError("wanted json or regex, one of them")
        return self


@dataclass(frozen=True)
class Constraint:
    """What form an answer must have: a JSON schema, or a regular expression."""

    rule: Mapping[str, Any] | str
    param: str
    """The field that asks for it."""


class SampledRequest(BaseModel):
    """What every request for answers may say about how they are drawn."""

    model_config = ConfigDict(allow_inf_nan=False)
    most_stops: ClassVar[int] = 4

    model: PlainText = Field(min_length=1, max_length=200)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, le=128)
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    stop: PlainText | Texts | None = None
    presence_penalty: float | None = Field(default=None, ge=-2.0, le=2.0)
    frequency_penalty: float | None = Field(default=None, ge=-2.0, le=2.0)
    logit_bias: dict[TokenId, Annotated[float, Field(ge=-100.0, le=100.0)]] | None = Field(
        default=None, max_length=MOST_BIASES
    )
    # Not OpenAI's, but other servers':
    top_k: int | None = Field(default=None, ge=0, le=1_000_000)
    """0 is off."""
    min_p: float | None = Field(default=None, ge=0.0, le=1.0)
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=100.0)
    structured_outputs: StructuredOutputs | None = None

    @field_validator("logit_bias", mode="before")
    @classmethod
    def _check_biases(cls, biases: object) -> object:
        if isinstance(biases, dict) and len(biases) > MOST_BIASES:  # before each of them is read
            raise ValueError(f"wanted at most {MOST_BIASES} tokens")
        return biases

    @field_validator("stop")
    @classmethod
    def _check_stops(cls, stop: str | list[str] | None) -> str | list[str] | None:
        if isinstance(stop, list) and len(stop) > cls.most_stops:
            raise ValueError(f"wanted at most {cls.most_stops} texts")
        if any(len(one) > LONGEST_STOP for one in ([stop] if isinstance(stop, str) else stop or [])):
            raise ValueError(f"wanted texts of at most {LONGEST_STOP} characters")
        return stop

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end an answer."""
        if isinstance(self.stop, str):
            return (self.stop,)
        return tuple(self.stop or ())

    def constraint(self) -> Constraint | None:
        """Return what form the answer must have, if the request says so."""
        wanted = self.structured_outputs
        if wanted is None:
            return None
        return Constraint(wanted.regex or wanted.json_ or {}, "structured_outputs")

    def shaping(self) -> Shaping:
        """Return how the request bends the logits."""
        asked = {
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "logit_bias": self.logit_bias,
        }
        return Shaping.model_validate({name: value for name, value in asked.items() if value is not None})

    def drawn(self, default: Sampling, *, limit: int) -> Sampling:
        """Return how to draw: what the request says, else the server's default.

        Args:
            default: the server's.
            limit: tokens of an answer at most.
        """
        return Sampling(
            temperature=default.temperature if self.temperature is None else self.temperature,
            top_p=default.top_p if self.top_p is None else self.top_p,
            top_k=self.top_k or default.top_k,
            max_new_tokens=limit,
        )


class ChatRequest(SampledRequest):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], FirstError()] = Field(min_length=1, max_length=2000)
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], FirstError()] | None = Field(default=None, max_length=MOST_TOOLS)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: Any = None
    function_call: Any = None
    """The two before there were tools."""

    def check_supported(self) -> None:
        """Refuse what would change the answer and is not built.

        Raises:
            Problem: the first such field.
        """
        _refuse({"functions": bool(self.functions), "function_call": bool(self.function_call)})
        if self.top_logprobs and not self.logprobs:
            raise Problem(400, "top_logprobs: needs logprobs = true", "invalid_value", param="top_logprobs")

    def constraint(self) -> Constraint | None:
        """Return what form the answer must have, if the request says so."""
        wanted = self.response_format
        if wanted is None or wanted.type == "text":
            return super().constraint()
        rule = ANY_OBJECT if wanted.json_schema is None else wanted.json_schema.schema_
        return Constraint(rule, "response_format")

    def sampling(self, default: Sampling, *, room: int) -> Sampling:
        """Return how to draw: what the request says, else the server's default; no longer than there is room."""
        limit = self.max_completion_tokens or self.max_tokens or default.max_new_tokens
        return self.drawn(default, limit=min(limit, room))


class TextRequest(SampledRequest):
    """The body of POST /v1/completions: texts, or token ids, to be continued."""

    most_stops = 16  # the lm-evaluation-harness sends all of a task's, and the end of a text

    prompt: Prompt
    max_tokens: int | None = Field(default=None, ge=0, le=1_000_000)
    echo: bool | None = None
    logprobs: int | None = Field(default=None, ge=0, le=20)
    best_of: int | None = Field(default=None, ge=1, le=128)
    suffix: str | None = None

    @property
    def limit(self) -> int:
        """Tokens of an answer at most; 16 unless told, as OpenAI's."""
        return DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens

    def check_supported(self) -> None:
        """Refuse what would change the answer and is not built.

        Raises:
            Problem: the first such field.
        """
        _refuse({"best_of": (self.best_of or 1) > (self.n or 1), "suffix": bool(self.suffix)})
        if self.stream and self.echo and self.logprobs is not None:
            raise Problem(400, "echo: not streamed together with logprobs; leave one out", "unsupported", param="echo")


def _refuse(unsupported: Mapping[str, bool]) -> None:
    for name, wanted in unsupported.items():
        if wanted:
            raise Problem(400, f"{name}: not supported by this server; leave it out", "unsupported", param=name)
