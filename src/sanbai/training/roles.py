"""Who does what in practice: rollout workers answer, read and score; learners differentiate; here, or as Ray actors.

An iteration's work is cut into the same parts however many workers there are (batches of prompts, groups of answers,
parts of a minibatch), and only whole parts are dealt out: so no number depends on how many workers there are or where.
Workers know weights and nothing else. All state stays in the process that holds the run, with the optimizers: whatever
happens to a worker, another does its parts again.

Here, the workers hold the very models that learn; elsewhere (`ray_workers.py`), copies, which get new weights once a
change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, Self, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from sanbai.foundation.device import Compute
from sanbai.foundation.errors import ModelError
from sanbai.foundation.parallel import map_parts
from sanbai.foundation.recipe import RecipeSection
from sanbai.generation.answering import Completion, batches_of
from sanbai.generation.weights import weights_digest
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.checkpoint import Weights
from sanbai.training.practice import PracticeRecipe, sample
from sanbai.training.reward_model import SCORING_TOKENS
from sanbai.training.rollouts import Readings, Rollouts, Score, read
from sanbai.training.sequences import group_by_tokens

Part = TypeVar("Part")
Common = TypeVar("Common")
Result = TypeVar("Result")


class RolesRecipe(RecipeSection):
    """Section `[ppo.roles]`: how many do the work, and where. No number depends on it."""

    place: Literal["in-process", "ray"] = "in-process"
    """`ray`: workers are actors on a Ray cluster (extra `cluster`), each with copies of its models."""
    address: str = "local"
    """Of `ray`: `HOST:6379`, `auto`, or `local`, which starts one on this machine for as long as the run lasts."""
    rollout_workers: int = Field(default=1, ge=1, le=1024)
    """Workers that answer, read and score; in the process they take turns over the same models."""
    learners: int = Field(default=0, ge=0, le=1024)
    """Workers that differentiate parts of a minibatch; 0: the run's own process does. It sums and steps in any case."""
    worker_cpus: float = Field(default=1.0, ge=0.0)
    """Of `ray`: processors kept for each worker."""
    worker_gpus: float = Field(default=0.0, ge=0.0)
    """Of `ray`: GPUs kept for each worker."""


@dataclass(frozen=True)
class Models:
    """The models that learn, as a worker knows them."""

    policy: LanguageModel
    value: ScalarModel | None

    def weights(self) -> dict[str, Tensor]:
        """Return what learns, by model and name; not copied."""
        return {f"{model}:{name}": tensor for model, part in self._parts() for name, tensor in part.tensors().items()}

    def load(self, weights: Mapping[str, Tensor], digest: str) -> None:
        """Take over weights that `weights` gave elsewhere.

        Args:
            weights: left as they are.
            digest: `weights_digest` of them where they come from.

        Raises:
            ModelError: what the models hold afterwards is something else.
        """
        for model, part in self._parts():
            prefix = f"{model}:"
            part.load({name.removeprefix(prefix): weights[name] for name in weights if name.startswith(prefix)})
        if weights_digest(self.weights()) != digest:
            raise ModelError("weights that arrived at a worker are not what was sent; give the same command again")

    def _parts(self) -> list[tuple[str, Weights]]:
        pairs = (("policy", self.policy), ("value", self.value))
        return [(name, Weights(model)) for name, model in pairs if model is not None]


class Worker(Protocol):
    """One of a role."""

    @property
    def models(self) -> Models:
        """What learns among its models."""

    @property
    def compute(self) -> Compute:
        """Threads, precision and device."""

    def elsewhere(self) -> Self:
        """Return it as it is sent to another process: without what belongs to this one."""


AnyWorker = TypeVar("AnyWorker", bound=Worker)
AnyWorker_co = TypeVar("AnyWorker_co", bound=Worker, covariant=True)


class Workers(Protocol[AnyWorker_co]):
    """All workers of a role."""

    @property
    def are_elsewhere(self) -> bool:
        """Whether this process can do other things while they work, and its weights are not theirs."""

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Let them go on with these weights, as `Models.weights` gives them; the tensors may change afterwards."""

    def deal(
        self, work: Callable[[AnyWorker_co, Sequence[Part], Common], Result], parts: Sequence[Part], common: Common
    ) -> list[tuple[Sequence[Part], Result]]:
        """Return what each worker makes of its parts, with these; every n-th part goes to the same one of n.

        Args:
            work: a method of the worker.
            parts: at least one.
            common: what the work on each of them needs.
        """

    def close(self) -> None:
        """Let the workers go; work under way comes to nothing."""


def hands(parts: Sequence[Part], num: int) -> list[Sequence[Part]]:
    """Deal parts out to at most `num` hands, none empty."""
    return [parts[number::num] for number in range(min(num, len(parts)))]


@dataclass(frozen=True)
class Here(Workers[AnyWorker]):
    """Workers in this process, over the models that learn: they take turns, each in as many threads as there are."""

    worker: AnyWorker
    num: int
    are_elsewhere: bool = False

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Do nothing: they hold them."""

    def deal(
        self, work: Callable[[AnyWorker, Sequence[Part], Common], Result], parts: Sequence[Part], common: Common
    ) -> list[tuple[Sequence[Part], Result]]:
        """Work through hand after hand."""
        return [(hand, work(self.worker, hand, common)) for hand in hands(parts, self.num)]

    def close(self) -> None:
        """Do nothing."""


def open_workers(worker: AnyWorker, num: int, recipe: RolesRecipe, leave_if_asked: Callable[[], None]) -> Any:
    """Return `Workers` like the given one.

    Args:
        worker: with this process's models.
        num: how many.
        recipe: where.
        leave_if_asked: called now and then while others work; what it raises ends the wait.

    Raises:
        ResourceError: no Ray, no such cluster, or no room there.
    """
    if recipe.place == "in-process":
        return Here(worker, num)
    from sanbai.training.ray_workers import RayWorkers  # noqa: PLC0415 - needs an extra

    return RayWorkers(worker, num, recipe, leave_if_asked)


@dataclass(frozen=True)
class RolloutWorker:
    """Answers prompts, reads answers and scores them.

    Attributes:
        models: the policy that answers; the critic, where it is asked before the update.
        reference: what the policy may not stray far from.
        reward: scores.
        recipe: sizes and temperature.
        compute: threads, precision, device.
        tokenizer: knows what ends an answer.
        leave_if_asked: looked at before each token and group; what it raises ends the work.
    """

    models: Models
    reference: LanguageModel
    reward: Score
    recipe: PracticeRecipe
    compute: Compute
    tokenizer: Tokenizer
    leave_if_asked: Callable[[], None] | None = None

    def elsewhere(self) -> RolloutWorker:
        """Return it without the run's own wish to stop."""
        return replace(self, leave_if_asked=None)

    def answer(
        self, batches: Sequence[Sequence[int]], asked: tuple[Sequence[Sequence[int]], int]
    ) -> list[tuple[int, Completion]]:
        """Return prompts' numbers and answers; `asked` are all prompts and the seed."""
        prompts, seed = asked
        rows = [row for batch in batches for row in batch]
        rollouts = sample(
            self.models.policy,
            [prompts[row] for row in rows],
            self.recipe,
            self.compute,
            self.tokenizer,
            seed=seed,
            rows=rows,
            before_step=self.leave_if_asked,
        )
        return list(zip(rows, rollouts.completions, strict=True))

    def read(self, groups: Sequence[Sequence[int]], rollouts: Rollouts) -> Readings:
        """Return what the models say of the groups' answers; the rest is 0."""
        return read(
            rollouts,
            groups,
            policy=self.models.policy,
            reference=self.reference,
            value=self.models.value,
            temperature=self.recipe.temperature,
            compute=self.compute,
            before_group=self.leave_if_asked,
        )

    def score(self, groups: Sequence[Sequence[int]], rollouts: Rollouts) -> list[Sequence[float]]:
        """Return the scores of each group's answers."""

        def score_group(group: Sequence[int]) -> Sequence[float]:
            some = rollouts.select(group)
            return self.reward(some.prompts, some.responses)

        return map_parts(score_group, groups)


def answer(
    workers: Workers[RolloutWorker], prompts: Sequence[Sequence[int]], recipe: PracticeRecipe, *, seed: int
) -> Rollouts:
    """Let the workers answer each prompt once; a row's draw depends on the seed and the row's number."""
    dealt = workers.deal(RolloutWorker.answer, batches_of(prompts, recipe.rollout_rows), (prompts, seed))
    completions = dict(pair for _, answered in dealt for pair in answered)
    return Rollouts(prompts, [completions[row] for row in range(len(prompts))])


def read_among(workers: Workers[RolloutWorker], rollouts: Rollouts, groups: Sequence[Sequence[int]]) -> Readings:
    """Let the workers' models read all answers; `groups` are the update's first ones."""
    (_, first), *others = workers.deal(RolloutWorker.read, groups, rollouts)
    for hand, readings in others:
        rows = torch.tensor([row for group in hand for row in group])
        for name in Readings.__slots__:
            getattr(first, name)[rows] = getattr(readings, name)[rows]
    return first


def score(workers: Workers[RolloutWorker], rollouts: Rollouts) -> Tensor:
    """Let the workers' reward models score all answers; return score_N."""
    groups = group_by_tokens(rollouts.lengths, max_tokens=SCORING_TOKENS)
    score_N = torch.zeros(len(rollouts.prompts))
    for hand, scores in workers.deal(RolloutWorker.score, groups, rollouts):
        for group, found in zip(hand, scores, strict=True):
            score_N[torch.tensor(group)] = torch.tensor(found)
    return score_N
