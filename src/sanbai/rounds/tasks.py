"""Tasks for labelers: K different answers to one prompt, sampled from the policy that people will rank next.

Answers that read the same are shown once, and a prompt to which the policy has too few different answers is left out:
there is nothing to choose.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator

from sanbai.data.prompts import Prompt
from sanbai.data.rankings import Ranking
from sanbai.foundation.device import Compute
from sanbai.foundation.files import JsonlWriter, canonical_json, read_jsonl
from sanbai.foundation.recipe import RecipeSection
from sanbai.foundation.seeds import derive_seed, python_random
from sanbai.foundation.stage import Stage
from sanbai.generation.answering import generate
from sanbai.generation.precision import decoding_precision
from sanbai.generation.sampling import Sampling
from sanbai.model.heads import LanguageModel
from sanbai.text.chat_template import encode_prompt
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.label_choice import choose_tasks
from sanbai.training.reward_model import RewardModel
from sanbai.training.reward_uncertainty import posterior_covariance, read_candidates


class LabelRecipe(RecipeSection):
    """Section `[label]`: what labelers are asked. Defaults: InstructGPT's 33,207 prompts and K = 4..9."""

    num_prompts: int = Field(default=33_207, ge=1)
    """Prompts whose answers are ranked for training."""
    num_heldout_prompts: int = Field(default=1000, ge=1)
    """Held-out prompts whose answers held-out labelers rank, to measure the reward model by."""
    min_answers: int = Field(default=4, ge=2, le=9)
    """A prompt with fewer different answers is left out."""
    max_answers: int = Field(default=9, ge=2, le=9)
    """Most answers shown for one prompt, foreign ones included."""
    num_foreign_answers: int = Field(default=0, ge=0, le=7)
    """Of these, answers that the model gave to other prompts. Without them labelers never see, and the reward model
    never learns, that an answer which is good elsewhere ("I do not know that") is bad here; InstructGPT's comparisons,
    drawn from several models, had such variety by themselves."""
    sampling: Sampling = Sampling()
    """How the answers are drawn."""
    batch_size: int = Field(default=108, ge=1)
    """Answers drawn at a time; a killed run loses at most one chunk of them."""
    num_open_prompts: int = Field(default=50, ge=0)
    """Prompts that the model which serves after a round answers for people to rank at /label."""
    open_choice: Literal["any", "expected_gain"] = "any"
    """Which prompts these are. `any`: the first of a random order; `expected_gain`: of `open_candidates` times as many
    those, with `open_answers` of each one's answers, whose rankings would teach the reward model most."""
    open_candidates: int = Field(default=4, ge=1)
    """Prompts answered for each that people are shown, where they are chosen by expected gain."""
    open_answers: int = Field(default=4, ge=2, le=9)
    """Answers shown of each prompt that is chosen by expected gain."""
    num_labelers: int = Field(default=40, ge=4)
    """Simulated labelers there are; `sanbai round run` says how many of them are asked."""
    num_judge_labelers: int = Field(default=8, ge=1)
    """Of these, the ones that only the second judge is trained on."""
    num_heldout_labelers: int = Field(default=8, ge=2)
    """Of these, the ones that no model is trained on."""
    rankings_per_prompt: int = Field(default=1, ge=1)
    """Simulated labelers who rank the same training prompt for the reward model; InstructGPT's were ranked by one."""
    judge_rankings_per_prompt: int = Field(default=1, ge=1)
    """The same for the second judge, of the prompts that it learns from."""
    judge_share: float = Field(default=1.0, gt=0.0, le=1.0)
    """Share of the training prompts that the second judge learns from; it has only to see when practice goes wrong."""
    model_share: float = Field(default=0.0, ge=0.0, le=0.9)
    """Share of a round's training prompts that the reward model of the round before ranks in the labelers' place, and
    the most that models' rankings may make of what a reward model learns from. 0: no model ranks, and rankings that one
    made in an earlier round are left out."""
    rankings_per_heldout_prompt: int = Field(default=4, ge=2)
    """Held-out labelers who rank the same held-out prompt: their agreement is the yardstick."""

    @property
    def num_draws(self) -> int:
        """Answers drawn to each prompt."""
        return self.max_answers - self.num_foreign_answers

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        if self.min_answers > self.max_answers:
            raise ValueError(f"min_answers {self.min_answers} exceeds max_answers {self.max_answers}")
        if self.num_foreign_answers >= self.max_answers:
            raise ValueError(f"num_foreign_answers {self.num_foreign_answers} leaves no room in {self.max_answers}")
        if self.num_judge_labelers + self.num_heldout_labelers >= self.num_labelers:
            raise ValueError("num_judge_labelers and num_heldout_labelers leave no labeler to train on")
        num_training = self.num_labelers - self.num_judge_labelers - self.num_heldout_labelers
        for name, wanted, found in (
            ("rankings_per_prompt", self.rankings_per_prompt, num_training),
            ("judge_rankings_per_prompt", self.judge_rankings_per_prompt, self.num_judge_labelers),
            ("rankings_per_heldout_prompt", self.rankings_per_heldout_prompt, self.num_heldout_labelers),
        ):
            if wanted > found:
                raise ValueError(f"{name} {wanted} exceeds the {found} labelers of its group")
        return self


@dataclass(frozen=True)
class Task:
    """One prompt with the answers to be ranked; the id is a hash of both, so equal tasks are one."""

    id: str
    messages: tuple[dict[str, str], ...]
    responses: tuple[str, ...]
    kind: str
    heldout: bool

    @classmethod
    def of(cls, prompt: Prompt, responses: Sequence[str], *, heldout: bool) -> Task:
        """Make the task of a prompt and its answers."""
        messages, answers = tuple(prompt.messages), tuple(responses)
        return cls(_task_id(messages, answers), messages, answers, prompt.kind, heldout)

    def with_answers(self, places: Sequence[int]) -> Task:
        """Return the task that shows some of the answers."""
        answers = tuple(self.responses[place] for place in places)
        return replace(self, id=_task_id(self.messages, answers), responses=answers)


def sample_tasks(
    stage: Stage,
    recipe: LabelRecipe,
    compute: Compute,
    *,
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    heldout_prompts: Sequence[Prompt],
    choose: Callable[[Sequence[Task]], Sequence[Task]] | None = None,
) -> dict[str, Any]:
    """Draw answers to every prompt and write `tasks.jsonl.gz`.

    Args:
        stage: one step of its run is one chunk of prompts, `num_task_steps` in all.
        recipe: section `[label]`.
        compute: precision and device.
        model: the policy that answers.
        tokenizer: the model's.
        prompts: for training.
        heldout_prompts: for measuring.
        choose: returns those tasks that are to be ranked; by default all are.

    Returns:
        Tasks, answers a task, and the share of prompts left out.

    Raises:
        Interrupted: asked to stop; the answers so far are saved.
    """
    model = model.to(compute.device)
    every = [*prompts, *heldout_prompts]
    encoded = [encode_prompt(tokenizer, prompt.messages) for prompt in every]
    saved = stage.run.load()
    step, answers = (saved[0], _unpack(saved[1])) if saved else (0, [])
    chunk = _chunk_prompts(recipe)
    while step * chunk < len(every):
        indices = range(step * chunk, min((step + 1) * chunk, len(every)))
        rows = [(index, draw) for index in indices for draw in range(recipe.num_draws)]
        completions = generate(
            model,
            [encoded[index] for index, _ in rows],
            recipe.sampling,
            seeds=[derive_seed(stage.seed, "label", every[index].id, draw) for index, draw in rows],
            stop_ids=tokenizer.reserved.ends(),
            batch_size=recipe.batch_size,
            precision=decoding_precision(compute),
        )
        answers.extend(completion.tokens for completion in completions)
        step += 1
        stage.run.record(step, answers=len(answers))
        stage.run.save(step, _pack(answers), {})
        stage.run.raise_if_stopping()

    num_tasks = num_responses = 0
    with JsonlWriter(stage.folder / "tasks.jsonl.gz") as writer:
        drawn = [
            [tokenizer.decode(tokens).strip() for tokens in answers[start : start + recipe.num_draws]]
            for start in range(0, len(answers), recipe.num_draws)
        ]
        tasks: Iterable[Task] = _tasks(recipe, every, drawn, num_training=len(prompts), seed=stage.seed)
        for task in tasks if choose is None else choose(list(tasks)):
            writer.write(asdict(task))
            num_tasks += 1
            num_responses += len(task.responses)
    return {
        "tasks": num_tasks,
        "answers_per_task": num_responses / max(num_tasks, 1),
        "left_out_share": 1 - num_tasks / len(every),
    }


def choose_informative(
    tasks: Sequence[Task],
    reward: RewardModel,
    tokenizer: Tokenizer,
    rankings: Sequence[Ranking],
    *,
    num_tasks: int,
    num_answers: int,
) -> list[Task]:
    """Return the tasks, each with some of its answers, whose rankings would teach a reward model most, best first.

    Args:
        tasks: to choose from.
        reward: the model to be taught.
        tokenizer: its own.
        rankings: what it was taught by.
        num_tasks: at most so many.
        num_answers: shown of each.
    """
    candidates = read_candidates(reward, tokenizer, [(task.messages, task.responses) for task in tasks])
    covariance_DD = posterior_covariance(reward, tokenizer, rankings)
    return [
        tasks[choice.candidate].with_answers(choice.answers)
        for choice in choose_tasks(candidates, covariance_DD, num_tasks=num_tasks, num_answers=num_answers)
    ]


def num_task_steps(recipe: LabelRecipe, num_prompts: int) -> int:
    """Return the chunks in which `sample_tasks` works through so many prompts."""
    return -(-num_prompts // _chunk_prompts(recipe))


def read_tasks(path: Path) -> Iterator[Task]:
    """Yield the tasks of a file that `sample_tasks` wrote."""
    for row in read_jsonl(path):
        yield Task(**{**row, "messages": tuple(row["messages"]), "responses": tuple(row["responses"])})


def _task_id(messages: Sequence[dict[str, str]], responses: Sequence[str]) -> str:
    return hashlib.sha256(canonical_json([list(messages), list(responses)]).encode()).hexdigest()[:24]


def _chunk_prompts(recipe: LabelRecipe) -> int:
    """Return the prompts of one chunk: about eight batches, some seconds of work on a CPU."""
    return max(1, 8 * recipe.batch_size // recipe.num_draws)


def _tasks(
    recipe: LabelRecipe, prompts: Sequence[Prompt], drawn: Sequence[Sequence[str]], *, num_training: int, seed: int
) -> Iterator[Task]:
    """Yield the tasks of prompts with enough different answers; foreign answers come from prompts of the same side."""
    for index, prompt in enumerate(prompts):
        heldout = index >= num_training
        side = range(num_training, len(prompts)) if heldout else range(num_training)
        own = _distinct(drawn[index])
        others = [drawn[other] for other in _other_places(index, side, recipe.num_foreign_answers, seed, prompt.id)]
        generator = python_random(seed, "foreign answer", prompt.id)
        foreign = [text for text in _distinct(generator.choice(answers) for answers in others) if text not in own]
        responses = [*own, *foreign]
        if len(responses) >= recipe.min_answers:
            yield Task.of(prompt, responses, heldout=heldout)


def _other_places(place: int, places: range, number: int, seed: int, name: str) -> list[int]:
    """Draw distinct places other than `place`, fewer if there are no more."""
    generator = python_random(seed, "other prompts", name)
    found = generator.sample(places, min(number + 1, len(places)))
    return [other for other in found if other != place][:number]


def _distinct(texts: Iterable[str]) -> list[str]:
    """Return the different non-empty texts in the order of their first appearance."""
    return [text for text in dict.fromkeys(texts) if text]


def _pack(answers: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    return {
        "tokens": torch.tensor([token for answer in answers for token in answer], dtype=torch.int32),
        "lengths": torch.tensor([len(answer) for answer in answers], dtype=torch.int32),
    }


def _unpack(tensors: dict[str, torch.Tensor]) -> list[list[int]]:
    lengths: list[int] = tensors["lengths"].tolist()
    return [part.tolist() for part in torch.split(tensors["tokens"], lengths)]
