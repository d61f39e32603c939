"""Alarms of practice: what usually goes wrong while the reward rises, watched at every iteration.

Each rings once a run, in one line that says what was found, what was wanted and what to do, and warns or stops as its
recipe says. None of them changes what is learned. The KL budget, which always stops, belongs to `brake.py` and rings
here too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from pydantic import Field
from torch import Tensor

from sanbai.foundation.recipe import RecipeSection
from sanbai.training.brake import Brake

Action = Literal["off", "warn", "stop"]
AlarmName = Literal[
    "kl_budget",
    "over_optimisation",
    "length_drift",
    "repetition",
    "entropy_collapse",
    "blind_critic",
    "dead_gradients",
]


class AlarmsRecipe(RecipeSection):
    """Section `[ppo.alarms]`: what each alarm does, and when it rings."""

    over_optimisation: Action = "warn"
    """The second judge likes the answers less than before while the reward model likes them more."""
    over_optimisation_readings: int = Field(default=2, ge=1)
    """Readings of the second judge in a row that must say so."""
    length_drift: Action = "warn"
    """Answers have become longer or shorter than the first iteration's."""
    most_length_drift: float = Field(default=2.0, gt=1.0)
    """Times as long, or as short."""
    repetition: Action = "warn"
    """Answers repeat themselves."""
    most_repetition: float = Field(default=0.3, ge=0.0, le=1.0)
    """Share of four-token pieces that stood in the same answer before."""
    entropy_collapse: Action = "warn"
    """The policy hardly chooses any more."""
    least_entropy: float = Field(default=0.1, ge=0.0, le=1.0)
    """Share of the first iteration's entropy."""
    blind_critic: Action = "warn"
    """The value model explains nothing of the returns."""
    blind_critic_iterations: int = Field(default=20, ge=1)
    """Iterations in a row with an explained variance of 0 or less."""
    dead_gradients: Action = "warn"
    """The policy's gradient has no length: constant rewards, or a mask that hides everything."""
    least_grad_norm: float = Field(default=1e-7, ge=0.0)
    """Length of the policy's own gradient, before shortening, pretraining's left out."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """One that rang.

    Attributes:
        name: the recipe's word for it.
        step: iterations done.
        what: the number that was looked at.
        found: its value.
        wanted: what it should have been.
        advice: the next step.
    """

    name: AlarmName
    step: int
    what: str
    found: float
    wanted: str
    advice: str

    def __str__(self) -> str:
        """The line for people."""
        return (
            f"alarm {self.name} at iteration {self.step}: {self.what} is {self.found:.4g}, wanted {self.wanted}; "
            f"{self.advice}"
        )


class Alarms:
    """Watches a run and remembers what rang. A part of the run that checkpoints save."""

    def __init__(self, recipe: AlarmsRecipe) -> None:
        """Start before the first iteration."""
        self._recipe = recipe
        self._first: dict[str, float] = {}
        self._blind_iterations = 0
        self.rung: dict[AlarmName, int] = {}
        """Which rang, and after how many iterations."""

    @property
    def stop_reason(self) -> AlarmName | Literal[""]:
        """The first alarm that ends training; empty while it may go on."""
        stopping = (name for name in self.rung if name != "kl_budget" and getattr(self._recipe, name) == "stop")
        return next(stopping, "")

    def see(self, step: int, numbers: Mapping[str, float]) -> list[Alarm]:
        """Return the alarms that an iteration's numbers set off for the first time.

        Args:
            step: iterations done.
            numbers: those that docs/stages/ppo.md explains. Entropy, explained variance and gradient may be missing,
                where a way of practising has none; their alarms then keep quiet.
        """
        self._first = {name: numbers[name] for name in ("length", "entropy") if name in numbers} | self._first
        is_blind = numbers.get("explained_variance", 1.0) <= 0
        self._blind_iterations = self._blind_iterations + 1 if is_blind else 0
        return self._ring(self._in_iteration(step, numbers))

    def judge(self, brake: Brake) -> list[Alarm]:
        """Return the alarms that the brake's newest verdict sets off for the first time."""
        return self._ring(self._in_verdicts(brake))

    def _in_iteration(self, step: int, numbers: Mapping[str, float]) -> Iterator[Alarm]:
        recipe, first = self._recipe, self._first
        shortest, longest = first["length"] / recipe.most_length_drift, first["length"] * recipe.most_length_drift
        if not shortest <= numbers["length"] <= longest:
            yield Alarm(
                "length_drift", step, "length", numbers["length"],
                f"{shortest:.4g} to {longest:.4g}",
                "read answers; if length is all that is learned, rank answers of like length and train the reward "
                "model anew, or raise kl_coef",
            )  # fmt: skip
        if numbers["repetition"] > recipe.most_repetition:
            yield Alarm(
                "repetition", step, "repetition", numbers["repetition"], f"at most {recipe.most_repetition:g}",
                "read answers; raise kl_coef, or rank answers that repeat themselves below others",
            )  # fmt: skip
        if "entropy" in numbers and numbers["entropy"] < recipe.least_entropy * first["entropy"]:
            yield Alarm(
                "entropy_collapse", step, "entropy", numbers["entropy"],
                f"at least {recipe.least_entropy * first['entropy']:.4g}", "lower learning_rate, or raise kl_coef",
            )  # fmt: skip
        if self._blind_iterations >= recipe.blind_critic_iterations:
            yield Alarm(
                "blind_critic", step, "explained_variance", numbers["explained_variance"],
                f"above 0 within {recipe.blind_critic_iterations} iterations",
                "raise value_learning_rate, or check that the value model begins as the reward model",
            )  # fmt: skip
        if "policy_grad_norm" in numbers and numbers["policy_grad_norm"] <= recipe.least_grad_norm:
            yield Alarm(
                "dead_gradients", step, "policy_grad_norm", numbers["policy_grad_norm"],
                f"above {recipe.least_grad_norm:g}", "look whether the reward model gives all answers the same score",
            )  # fmt: skip

    def _in_verdicts(self, brake: Brake) -> Iterator[Alarm]:
        latest, best = brake.verdicts[-1], brake.best
        if latest.kl > brake.kl_budget:
            yield Alarm(
                "kl_budget", latest.step, "judged_kl", latest.kl, f"at most {brake.kl_budget:g}",
                f"iteration {best.step}'s weights are kept; raise kl_coef or lower learning_rate to go further",
            )  # fmt: skip
        lately = brake.verdicts[-self._recipe.over_optimisation_readings :]
        enough = len(lately) == self._recipe.over_optimisation_readings
        if enough and all(one.judge_reward < best.judge_reward and one.reward > best.reward for one in lately):
            yield Alarm(
                "over_optimisation", latest.step, "judge_reward", latest.judge_reward,
                f"at least {best.judge_reward:.4g} while reward rises from {best.reward:.4g} to {latest.reward:.4g}",
                f"iteration {best.step}'s weights are kept; collect rankings of the newest answers and train the "
                "reward model anew",
            )  # fmt: skip

    def _ring(self, found: Iterator[Alarm]) -> list[Alarm]:
        new = [one for one in found if one.name not in self.rung and self._action(one.name) != "off"]
        self.rung |= {one.name: one.step for one in new}
        return new

    def _action(self, name: AlarmName) -> Action:
        action: Action = "stop" if name == "kl_budget" else getattr(self._recipe, name)
        return action

    def tensors(self) -> dict[str, Tensor]:
        """Return what rang, in order, the first iteration's numbers, and the count of the critic's blind iterations."""
        names = get_args(AlarmName)
        rung = [(names.index(name), step) for name, step in self.rung.items()]
        return {
            "rung": torch.tensor(rung, dtype=torch.int64).reshape(-1, 2),
            "blind_iterations": torch.tensor(self._blind_iterations),
            **{f"first:{name}": torch.tensor(value, dtype=torch.float64) for name, value in self._first.items()},
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `tensors` gave."""
        names = get_args(AlarmName)
        self.rung = {names[place]: step for place, step in tensors["rung"].tolist()}
        self._blind_iterations = int(tensors["blind_iterations"])
        prefix = "first:"
        self._first = {
            name.removeprefix(prefix): value.item() for name, value in tensors.items() if name.startswith(prefix)
        }
