"""An iteration of practice under way: its answers, what was said of them, and how far the update has come.

It lies in every checkpoint, so that a run that is asked to stop in the middle of an update goes on in the middle of it.
What follows from these by calculation (advantages, returns, minibatches) is calculated again.

Shapes: N responses, R response tokens (padded).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from sanbai.generation.answering import Completion
from sanbai.training.rollouts import Readings, Rollouts

Minibatch = TypeVar("Minibatch")


@dataclass(frozen=True, slots=True)
class Gathered:
    """What an iteration learns from, fixed before the first of its steps.

    Attributes:
        rollouts: prompts and answers.
        readings: what the models said of them.
        score_N: the reward model's scores, before penalties.
        behaviour_logprob_NR: what the policy that answered said, where `readings` are another's; None: they are its.
    """

    rollouts: Rollouts
    readings: Readings
    score_N: Tensor
    behaviour_logprob_NR: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Return all of it, tokens of prompts and answers end to end beside their numbers."""
        completions = self.rollouts.completions
        return {
            **_join("prompts", self.rollouts.prompts, torch.int64),
            **_join("tokens", [each.tokens for each in completions], torch.int64),
            **_join("logprobs", [each.logprobs for each in completions], torch.float64),
            **_join("sampled_logprobs", [each.sampled_logprobs for each in completions], torch.float64),
            "stopped": torch.tensor([each.finish_reason == "stop" for each in completions]),
            "score": self.score_N,
            **({} if self.behaviour_logprob_NR is None else {"behaviour": self.behaviour_logprob_NR}),
            **{field.name: getattr(self.readings, field.name) for field in fields(Readings)},
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Gathered:
        """Return what `tensors` described."""
        columns = (_split(name, tensors) for name in ("tokens", "logprobs", "sampled_logprobs"))
        completions = [
            Completion(tokens, logprobs, sampled, "stop" if stopped else "length")
            for tokens, logprobs, sampled, stopped in zip(*columns, tensors["stopped"].tolist(), strict=True)
        ]
        readings = Readings(**{field.name: tensors[field.name] for field in fields(Readings)})
        rollouts = Rollouts(_split("prompts", tensors), completions)
        return cls(rollouts, readings, tensors["score"], tensors.get("behaviour"))


class Buffer:
    """What has been gathered, and what the update's steps have said so far; empty between two iterations."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget the iteration."""
        self.gathered: Gathered | None = None
        """None until it is filled."""
        self.latest_NR = torch.zeros(0)
        """Log-probabilities as the newest step saw them; steps write into it."""
        self._sums: Counter[str] = Counter()
        self._num_steps = 0

    def fill(self, gathered: Gathered) -> Gathered:
        """Hold what an iteration gathered, before its first step, and return it."""
        self.gathered = gathered
        self.latest_NR = gathered.readings.logprob_NR.clone()
        return gathered

    def left_of(self, minibatches: Iterable[Minibatch]) -> Iterator[Minibatch]:
        """Return the minibatches whose step has not been taken."""
        return islice(minibatches, self._num_steps, None)

    def add_step(self, *numbers: Mapping[str, float]) -> None:
        """Count a step with its losses and norms."""
        for each in numbers:
            self._sums.update(each)
        self._num_steps += 1

    def means(self) -> dict[str, float]:
        """Return the means over the steps so far."""
        return {name: total / self._num_steps for name, total in self._sums.items()}

    def tensors(self) -> dict[str, Tensor]:
        """Return everything; nothing where nothing is held."""
        if self.gathered is None:
            return {}
        return {
            **self.gathered.tensors(),
            "latest": self.latest_NR,
            "num_steps": torch.tensor(self._num_steps),
            **{f"sum:{name}": torch.tensor(total, dtype=torch.float64) for name, total in self._sums.items()},
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `tensors` gave."""
        self.clear()
        if tensors:
            self.fill(Gathered.from_tensors(tensors))
            self.latest_NR = tensors["latest"]
            self._num_steps = int(tensors["num_steps"])
            prefix = "sum:"
            sums = {name.removeprefix(prefix): tensors[name].item() for name in tensors if name.startswith(prefix)}
            self._sums.update(sums)


def _join(name: str, rows: Sequence[Sequence[float]], dtype: torch.dtype) -> dict[str, Tensor]:
    return {
        name: torch.tensor([number for row in rows for number in row], dtype=dtype),
        f"{name}/lengths": torch.tensor([len(row) for row in rows]),
    }


def _split(name: str, tensors: Mapping[str, Tensor]) -> list[list[int]]:
    return [row.tolist() for row in torch.split(tensors[name], tensors[f"{name}/lengths"].tolist())]
