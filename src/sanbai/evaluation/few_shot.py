"""Learning from examples in the prompt: multiple choice by log-likelihood with 0, 1 or 4 shots.

The rules, each of which some harness gets wrong:
- context and continuation are encoded together and scored from the end of the *context*: an answer that is a prefix of
  another ("5" and "50") keeps a span of its own; where a merge crosses the border, the span starts at the first token
  that differs;
- trailing spaces of the context belong to the continuation;
- shots come from a pool that shares no item with the questions, several draws a question;
- the question is never cut: where the context is full, shots are dropped and counted;
- the choice is the one with the most log-probability a byte, fixed in advance, the same for every vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

from sanbai.evaluation.statistics import DRAWS, Estimate, rate_or_mean
from sanbai.foundation.errors import DataError
from sanbai.foundation.seeds import python_random
from sanbai.generation.scoring import score
from sanbai.model.heads import LanguageModel
from sanbai.text.tokenizer import Tokenizer

SHOTS = (0, 1, 4)


@dataclass(frozen=True, slots=True)
class ChoiceItem:
    """A question with its possible answers.

    Attributes:
        id: names the item.
        question: text that stands before the answer, without it.
        choices: possible continuations, at least two, each with the space that joins it, usually one in front.
        answer: index of the right one.
    """

    id: str
    question: str
    choices: Sequence[str]
    answer: int


@dataclass(frozen=True, slots=True)
class ChoiceTask:
    """Questions of one sort, and others of the same sort to be shown as examples.

    Attributes:
        name: how reports call it.
        items: to be answered.
        pool: to be shown with their answers; no id in common with `items`.
    """

    name: str
    items: Sequence[ChoiceItem]
    pool: Sequence[ChoiceItem]


@dataclass(frozen=True)
class FewShotScores:
    """A model's accuracy by number of shots.

    Attributes:
        accuracy: number of shots -> share of questions answered rightly, over all tasks.
        by_task: task -> number of shots -> the same.
        right: number of shots -> item -> share of its draws answered rightly; pairs two models item by item.
        chance: what guessing would score over the same questions.
        dropped_shots: examples that did not fit into the context.
    """

    accuracy: Mapping[int, Estimate]
    by_task: Mapping[str, Mapping[int, Estimate]]
    right: Mapping[int, Mapping[str, float]]
    chance: float
    dropped_shots: int

    def to_json(self) -> dict[str, Any]:
        """Plain values for `evaluation.json`; numbers of shots become text, as JSON's keys must."""
        return {
            "accuracy": {str(shots): estimate.to_json() for shots, estimate in self.accuracy.items()},
            "by_task": {
                task: {str(shots): estimate.to_json() for shots, estimate in scores.items()}
                for task, scores in self.by_task.items()
            },
            "chance": self.chance,
            "dropped_shots": self.dropped_shots,
        }


@dataclass(frozen=True, slots=True)
class _Trial:
    """One question with one draw of shots: for each choice what is read before it, and the ids that are scored."""

    task: str
    item: str
    shots: int
    answer: int
    prompts: Sequence[Sequence[int]]
    choices: Sequence[Sequence[int]]
    num_bytes: Sequence[int]


def score_choices(
    model: LanguageModel,
    tokenizer: Tokenizer,
    tasks: Sequence[ChoiceTask],
    *,
    context: int,
    seed: int,
    shots: Sequence[int] = SHOTS,
    num_draws: int = 2,
    batch_size: int = 32,
    draws: int = DRAWS,
) -> FewShotScores:
    """Answer every question by the likeliest choice a byte, with each number of shots.

    Args:
        model: the reader.
        tokenizer: of the model.
        tasks: at least one with at least one item.
        context: the model's positions.
        seed: of the draws of shots and of the bootstrap; models scored with one seed see the same shots.
        shots: how many examples to show.
        num_draws: draws of examples a question; without examples there is one.
        batch_size: rows of a forward pass.
        draws: resamples of the bootstrap, for items with several draws.

    Raises:
        DataError: there is no question, the pool is too small or holds a question, or a question alone is too long.
    """
    trials, dropped = _trials(tokenizer, tasks, context=context, seed=seed, shots=shots, num_draws=num_draws)
    logprobs = iter(
        score(
            model,
            [prompt for trial in trials for prompt in trial.prompts],
            [choice for trial in trials for choice in trial.choices],
            batch_size=batch_size,
        )
    )
    outcomes: dict[tuple[str, str, int], list[float]] = {}
    for trial in trials:
        per_byte = [fsum(next(logprobs)) / num_bytes for num_bytes in trial.num_bytes]
        likeliest = max(range(len(per_byte)), key=per_byte.__getitem__)
        outcomes.setdefault((trial.task, trial.item, trial.shots), []).append(float(likeliest == trial.answer))
    right = {key: sum(values) / len(values) for key, values in outcomes.items()}

    def estimate(number: int, task: str | None = None) -> Estimate:
        values = [value for (name, _, k), value in right.items() if k == number and task in {None, name}]
        return rate_or_mean(values, seed=seed, draws=draws)

    items = [item for task in tasks for item in task.items]
    return FewShotScores(
        accuracy={number: estimate(number) for number in shots},
        by_task={task.name: {number: estimate(number, task.name) for number in shots} for task in tasks if task.items},
        right={
            number: {f"{task}/{item}": value for (task, item, k), value in right.items() if k == number}
            for number in shots
        },
        chance=sum(1 / len(item.choices) for item in items) / len(items),
        dropped_shots=dropped,
    )


def encode_choice(tokenizer: Tokenizer, context: str, continuation: str) -> tuple[list[int], int]:
    """Encode context and continuation together; return the ids and the index of the first that is scored.

    Spaces at the context's end move to the continuation first. Usually the context's own ids are a prefix of the
    whole's; where a merge crosses the border, scoring starts at the first id that differs.
    """
    bare = context.rstrip(" ")
    ids = tokenizer.encode(bare + context[len(bare) :] + continuation)
    alone = tokenizer.encode(bare)
    start = next((i for i, (a, b) in enumerate(zip(alone, ids, strict=False)) if a != b), min(len(alone), len(ids)))
    return ids, start


def _trials(
    tokenizer: Tokenizer,
    tasks: Sequence[ChoiceTask],
    *,
    context: int,
    seed: int,
    shots: Sequence[int],
    num_draws: int,
) -> tuple[list[_Trial], int]:
    """Return every question with every draw of shots, and the number of shots that did not fit."""
    trials, dropped = [], 0
    for task in tasks:
        overlap = {item.id for item in task.items} & {item.id for item in task.pool}
        if overlap:
            raise DataError(f"task {task.name}: {min(overlap)} is both asked and shown; keep the pool apart")
        if len(task.pool) < max(shots):
            raise DataError(f"task {task.name}: a pool of {len(task.pool)} items cannot give {max(shots)} shots")
        for item in task.items:
            for number in shots:
                for draw in range(num_draws if number else 1):
                    taken = python_random(seed, "shots", task.name, item.id, number, draw).sample(task.pool, number)
                    trial = _fitting_trial(tokenizer, task.name, item, taken, number, context)
                    dropped += number - trial[1]
                    trials.append(trial[0])
    if not trials:
        raise DataError("no multiple-choice question to score; give the evaluation at least one")
    return trials, dropped


def _fitting_trial(
    tokenizer: Tokenizer, task: str, item: ChoiceItem, taken: Sequence[ChoiceItem], shots: int, context: int
) -> tuple[_Trial, int]:
    """Drop shots from the front until the longest choice fits; return the trial and the shots that are left."""
    for first in range(len(taken) + 1):
        shown = [f"{shot.question}{shot.choices[shot.answer]}" for shot in taken[first:]]
        prompt = "\n\n".join([*shown, item.question])
        encoded = [encode_choice(tokenizer, prompt, choice) for choice in item.choices]
        if max(len(ids) for ids, _ in encoded) + 1 <= context:
            trial = _Trial(
                task=task,
                item=item.id,
                shots=shots,
                answer=item.answer,
                prompts=[[tokenizer.reserved.end_of_text, *ids[:start]] for ids, start in encoded],
                choices=[ids[start:] for ids, start in encoded],
                num_bytes=[max(1, len(choice.encode())) for choice in item.choices],
            )
            return trial, len(taken) - first
    raise DataError(f"task {task}, item {item.id}: the question alone is longer than {context} tokens; shorten it")
