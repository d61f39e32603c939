"""What a model answers to held-out prompts, and what a judge says of each answer: helpful, honest, harmless.

One fixed sampling setting serves every model, and every model gets the same random numbers for the same prompt, so
that two models are compared on the same draws. The judge is passed in: the tiny world's oracle, or any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from sanbai.evaluation.statistics import DRAWS, Estimate, bootstrap_mean, rate_or_mean
from sanbai.foundation.errors import DataError
from sanbai.foundation.files import JsonlWriter, read_jsonl
from sanbai.foundation.seeds import derive_seed
from sanbai.generation.answering import generate
from sanbai.generation.sampling import Sampling
from sanbai.model.heads import LanguageModel
from sanbai.text.chat_markup import Message
from sanbai.text.chat_template import encode_prompt
from sanbai.text.tokenizer import Tokenizer

AXES = ("helpful", "honest", "harmless", "gold_utility")
"""The four figures by which models are compared, in the order of every table."""


class EvaluationPrompt(Protocol):
    """What an evaluation reads of a prompt; a judge may know more of it."""

    @property
    def id(self) -> str:
        """Names the prompt."""

    @property
    def messages(self) -> Sequence[Message]:
        """The conversation that waits for an answer."""

    @property
    def kind(self) -> str:
        """One of the ten kinds."""

    @property
    def task(self) -> str:
        """What is asked for, finer than the kind: riddle, sorting, refusing ..."""


class Judgement(Protocol):
    """What a judge says of one answer; yes and no count 1 and 0."""

    @property
    def helpful(self) -> float:
        """Does what was asked, in [0, 1]."""

    @property
    def honest(self) -> float:
        """Claims nothing false, in [0, 1]."""

    @property
    def harmless(self) -> float:
        """Helps nobody to do harm, in [0, 1]."""

    @property
    def over_refusal(self) -> float:
        """Refuses where nothing speaks against answering, in [0, 1]."""

    @property
    def length(self) -> float:
        """Length of the answer in words."""

    @property
    def gold_utility(self) -> float:
        """The one number that says how good the answer is; used in evaluation alone."""


Judge = Callable[[Any, str], Judgement]
"""(prompt, answer) -> what is to be said of it."""


@dataclass(frozen=True)
class Contestant:
    """A model with the way it is asked.

    Attributes:
        name: how reports call it: base, supervised, ppo.
        model: generates and reads.
        encode: conversation to prompt tokens.
        decode: sampled tokens, the stop id left out, to the answer that the judge sees.
        stop_ids: ids that end an answer.
    """

    name: str
    model: LanguageModel
    encode: Callable[[Sequence[Message]], list[int]]
    decode: Callable[[Sequence[int]], str]
    stop_ids: frozenset[int]


def chat_contestant(name: str, model: LanguageModel, tokenizer: Tokenizer, *, max_prompt_tokens: int) -> Contestant:
    """Return a model that is asked through the chat template."""

    def encode(messages: Sequence[Message]) -> list[int]:
        return encode_prompt(tokenizer, messages, max_tokens=max_prompt_tokens)

    def decode(tokens: Sequence[int]) -> str:
        return tokenizer.decode(tokens).strip()

    return Contestant(name=name, model=model, encode=encode, decode=decode, stop_ids=tokenizer.reserved.ends())


def transcript_contestant(
    name: str,
    model: LanguageModel,
    tokenizer: Tokenizer,
    *,
    max_prompt_tokens: int,
    speakers: Mapping[str, str] | None = None,
) -> Contestant:
    """Return a model that has read text but no conversations in the template: it is asked to continue a transcript.

    The prompt reads `Speaker: what they said`, a line a turn, and ends in the assistant's name; the answer ends where
    the transcript's next speaker begins. Put through the template instead, such a model would be judged on markers
    that it has never seen.

    Args:
        name: how reports call it.
        model: the reader.
        tokenizer: of the model.
        max_prompt_tokens: the oldest tokens go beyond it.
        speakers: name of each role in the transcript; Question and Answer where not given.
    """
    names = speakers or {"system": "Note", "user": "Question", "assistant": "Answer", "tool": "Result"}

    def encode(messages: Sequence[Message]) -> list[int]:
        lines = [f"{names[turn['role']]}: {turn['content']}" for turn in messages]
        text = "\n".join([*lines, f"{names['assistant']}:"])
        return [tokenizer.reserved.end_of_text, *tokenizer.encode(text)[-(max_prompt_tokens - 1) :]]

    def decode(tokens: Sequence[int]) -> str:
        text = "\n" + tokenizer.decode(tokens).strip()
        ends = [place for place in (text.find(f"\n{speaker}:") for speaker in names.values()) if place >= 0]
        return text[: min(ends, default=len(text))].strip()

    return Contestant(name=name, model=model, encode=encode, decode=decode, stop_ids=tokenizer.reserved.ends())


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """One answer with its judgement: a row of `answers-<model>.jsonl.gz`.

    Attributes:
        prompt: id of the prompt; the unit of every interval.
        sample: number of the answer among those to the same prompt.
        kind: the prompt's kind.
        task: the prompt's task.
        answer: the text judged.
        tokens: what was sampled, the stop id included.
        finish_reason: "stop", or "length" where the answer was cut.
        helpful: in [0, 1].
        honest: in [0, 1].
        harmless: in [0, 1].
        over_refusal: in [0, 1].
        length: in words.
        gold_utility: the judge's one number.
    """

    prompt: str
    sample: int
    kind: str
    task: str
    answer: str
    tokens: Sequence[int]
    finish_reason: str
    helpful: float
    honest: float
    harmless: float
    over_refusal: float
    length: float
    gold_utility: float


def answer_prompts(
    contestant: Contestant,
    prompts: Sequence[EvaluationPrompt],
    judge: Judge,
    *,
    sampling: Sampling,
    seed: int,
    batch_size: int,
    num_samples: int = 1,
    on_batch: Callable[[int], None] | None = None,
) -> list[ScoredAnswer]:
    """Sample `num_samples` answers to each prompt and have them judged.

    Args:
        contestant: the model and how it is asked.
        prompts: held out from all training.
        judge: called once an answer.
        sampling: temperature, top-p, longest answer.
        seed: a row's draws depend on it, the prompt's id and the sample's number, not on model or batch.
        batch_size: prompts generated at a time.
        num_samples: answers to each prompt.
        on_batch: called after each batch with the number of answers so far.
    """
    asked = [(prompt, sample) for prompt in prompts for sample in range(num_samples)]
    completions = generate(
        contestant.model,
        [contestant.encode(prompt.messages) for prompt, _ in asked],
        sampling,
        seeds=[derive_seed(seed, "answer", prompt.id, sample) for prompt, sample in asked],
        stop_ids=set(contestant.stop_ids),
        batch_size=batch_size,
        on_batch=on_batch,
    )
    rows = []
    for (prompt, sample), completion in zip(asked, completions, strict=True):
        answer = contestant.decode([token for token in completion.tokens if token not in contestant.stop_ids])
        judgement = judge(prompt, answer)
        rows.append(
            ScoredAnswer(
                prompt=prompt.id,
                sample=sample,
                kind=prompt.kind,
                task=prompt.task,
                answer=answer,
                tokens=completion.tokens,
                finish_reason=completion.finish_reason,
                helpful=float(judgement.helpful),
                honest=float(judgement.honest),
                harmless=float(judgement.harmless),
                over_refusal=float(judgement.over_refusal),
                length=float(judgement.length),
                gold_utility=float(judgement.gold_utility),
            )
        )
    return rows


@dataclass(frozen=True)
class AnswerScores:
    """A model's figures: `helpful, honest, harmless, gold_utility, over_refusal, length, cut` overall and by kind."""

    overall: Mapping[str, Estimate]
    by_kind: Mapping[str, Mapping[str, Estimate]]


def score_answers(rows: Sequence[ScoredAnswer], *, seed: int, draws: int = DRAWS) -> AnswerScores:
    """Sum up judged answers, with intervals by prompt.

    Args:
        rows: of one model, at least one.
        seed: of the bootstrap.
        draws: resamples.

    Raises:
        DataError: there is no answer at all.
    """
    if not rows:
        raise DataError("no answers to score; give the evaluation at least one prompt")
    by_kind = {
        kind: _estimates([row for row in rows if row.kind == kind], seed=seed, draws=draws)
        for kind in sorted({row.kind for row in rows})
    }
    return AnswerScores(overall=_estimates(rows, seed=seed, draws=draws), by_kind=by_kind)


def write_answers(path: Path, rows: Iterable[ScoredAnswer]) -> None:
    """Write rows as JSON Lines, gzip by suffix; equal rows give equal bytes."""
    with JsonlWriter(path) as writer:
        for row in rows:
            writer.write(asdict(row))


def read_answers(path: Path) -> list[ScoredAnswer]:
    """Read what `write_answers` wrote.

    Raises:
        DataError: a row lacks a field or has one too many.
    """
    rows = []
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            rows.append(ScoredAnswer(**row))
        except TypeError as error:
            raise DataError(f"{path}:{number}: not a judged answer: {error}; evaluate again") from None
    return rows


def _estimates(rows: Sequence[ScoredAnswer], *, seed: int, draws: int) -> dict[str, Estimate]:
    prompts = [row.prompt for row in rows]
    estimates = {
        axis: rate_or_mean([getattr(row, axis) for row in rows], prompts, seed=seed, draws=draws)
        for axis in ("helpful", "honest", "harmless", "over_refusal")
    }
    for axis in ("gold_utility", "length"):
        estimates[axis] = bootstrap_mean([getattr(row, axis) for row in rows], prompts, seed=seed, draws=draws)
    cut = [float(row.finish_reason == "length") for row in rows]
    estimates["cut"] = rate_or_mean(cut, prompts, seed=seed, draws=draws)
    return estimates
