"""Answers that people rank, and the people: what the phenomena of the reward model share.

Prompts, answers and labelers are the tiny world's. The answers are written as an imperfect policy would sample them, so
that nothing here depends on how good a policy is; a labeler's ranking of a prompt's answers is one label.

All seeds start from one pretrained model: what differs between them is prompts, answers, labelers and the order of
training, not the text that was read before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sanbai.data.conversations import Conversation
from sanbai.data.rankings import Ranking
from sanbai.evaluation.reward_accuracy import StrictPair, margins, strict_pairs
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.seeds import derive_seed, python_random
from sanbai.lab.bench import FULL, Bench, shape
from sanbai.training.optimizer import OptimizerRecipe
from sanbai.training.reward import RewardRecipe
from sanbai.training.reward_model import RewardModel, load_reward_model
from sanbai.world.demonstrations import answers as write_answers
from sanbai.world.demonstrations import perfect
from sanbai.world.labelers import SimulatedLabeler, labelers
from sanbai.world.prompts import Prompt, Split, prompts

SIZE = replace(FULL, num_steps=600, num_texts=200, num_demonstrations=960)
"""`num_demonstrations` counts prompts that are ranked for training, `num_texts` those that measure."""
MOST_ANSWERS = 9
HELDOUT_ANSWERS = 4
NUM_ZERO = 20
"""Demonstrations that set the reward's zero; no figure here depends on it."""
TRIES = 12
"""Answers written for each that is wanted, before a prompt is given up as having too few different ones."""


@dataclass(frozen=True)
class Question:
    """A prompt with different answers to it."""

    prompt: Prompt
    answers: tuple[str, ...]


def reward_recipe(*, batch_prompts: int = 16, num_epochs: int = 1) -> RewardRecipe:
    """Return how every reward model here is trained."""
    return RewardRecipe(
        num_epochs=num_epochs,
        batch_prompts=batch_prompts,
        micro_batch_tokens=2048,
        learning_rate=1e-3,
        warmup_steps=3,
        validation_share=0.0,
        max_prompt_tokens=128,
        max_response_tokens=96,
        evaluate_steps=100_000,
        checkpoint_steps=1000,
        optimizer=OptimizerRecipe(matrices="muon", weight_decay=0.2),
    )


def started(bench: Bench) -> tuple[Bench, Artifact]:
    """Return the bench of the text that all seeds share, and the model pretrained on it."""
    shared = replace(bench, seed=1, text_seed=1)
    base = shared.pretrained(shape(bench.size))
    return replace(bench, text_seed=1), base


def questions(bench: Bench, purpose: str, num: int, *, num_answers: int, split: Split = "train") -> list[Question]:
    """Return prompts with as many different answers, fewer prompts if the world runs dry."""
    recipe = bench.world.model_copy(update={"few_shot_share": 0.0})
    seed = derive_seed(bench.seed, "lab", purpose)
    found: list[Question] = []
    for prompt in prompts(bench.village, seed, split=split, num=2 * num, recipe=recipe):
        generator = python_random(bench.seed, "lab", "answers", prompt.id)
        written = write_answers(prompt, generator, TRIES * num_answers, recipe)
        different = tuple(dict.fromkeys(written))[:num_answers]
        if len(different) == num_answers and len(found) < num:
            found.append(Question(prompt, different))
    return found


def panel(bench: Bench, num: int = 40) -> tuple[SimulatedLabeler, ...]:
    """Return the seed's labelers."""
    return labelers(bench.seed, num, bench.world)


def ranking(question: Question, labeler: SimulatedLabeler, places: Sequence[int]) -> Ranking:
    """Return one labeler's ranking of some of a question's answers."""
    responses = tuple(question.answers[place] for place in places)
    label = labeler.label(question.prompt, responses)
    return Ranking(
        id=f"{question.prompt.id}-{labeler.name}",
        messages=tuple(question.prompt.messages),
        responses=responses,
        buckets=tuple(tuple(bucket) for bucket in label["buckets"]),
        labeler=labeler.name,
        kind=question.prompt.kind,
    )


def ranked_by_one(
    bench: Bench, asked: Sequence[Question], crowd: Sequence[SimulatedLabeler], num: int
) -> list[Ranking]:
    """Return rankings of the first `num` answers of each question, each by one labeler drawn from the crowd."""
    return [
        ranking(one, python_random(bench.seed, "lab", "who", one.prompt.id).choice(crowd), range(num)) for one in asked
    ]


def heldout_pairs(bench: Bench, crowd: Sequence[SimulatedLabeler], *, num_labelers: int = 4) -> list[StrictPair]:
    """Return strict pairs of held-out prompts, each ranked by some labelers of the crowd."""
    asked = questions(bench, "held out", bench.size.num_texts, num_answers=HELDOUT_ANSWERS, split="heldout")
    rankings = [
        ranking(one, labeler, range(HELDOUT_ANSWERS))
        for one in asked
        for labeler in python_random(bench.seed, "lab", "judges", one.prompt.id).sample(list(crowd), num_labelers)
    ]
    return strict_pairs(rankings)


def demonstrations(bench: Bench) -> list[Conversation]:
    """Return faultless answers to set the reward's zero by."""
    asked = prompts(bench.village, derive_seed(bench.seed, "lab", "zero"), split="train", num=NUM_ZERO)
    return [
        Conversation(
            id=one.id,
            messages=(*one.messages, {"role": "assistant", "content": perfect(one, python_random(0, "zero", one.id))}),
            source="world",
        )
        for one in asked
    ]


def taught(bench: Bench, name: str, base: Artifact, rankings: Sequence[Ranking], recipe: RewardRecipe) -> RewardModel:
    """Return the reward model that was taught by some rankings."""
    artifact = bench.reward(name, base, recipe, rankings, demonstrations(bench))
    return load_reward_model(artifact.path, bench.compute)


def margins_of(bench: Bench, model: RewardModel, pairs: Sequence[StrictPair]) -> NDArray[np.float64]:
    """Return the model's margin on each pair."""
    return margins(pairs, lambda answers: model.score_answers(bench.tokenizer, answers))
