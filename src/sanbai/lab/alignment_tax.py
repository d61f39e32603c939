"""What each stage of InstructGPT's recipe brings and costs: base, supervised, PPO, PPO-ptx, and PPO with more β.

Published (Ouyang et al. 2022, sections 4.2 and figures 33, 34): each stage is preferred to the one before; PPO alone
forgets what pretraining taught; mixing pretraining gradients in repairs that, and raising β does not. Refuted here if
PPO-ptx keeps less than nine tenths of PPO's gain, if 0.3 or more of the rise in bits per byte is left, or if more β
does as well.
"""

from __future__ import annotations

from sanbai.evaluation.compare import win_rate
from sanbai.lab.assistants import Assistants
from sanbai.lab.trials import Phenomenon

#: Times the recipe's β, for the policy that is only held closer.
MORE_BETA = 5.0
AXES = ("helpful", "honest", "harmless")
POLICIES = ("PPO", "PPO-ptx", "PPO, five times β")


def measure(assistants: Assistants) -> dict[str, float]:
    """Make all five models and return the figures."""
    ancestry, recipe = assistants.ancestry, assistants.recipe.ppo
    models = {
        "base": ancestry.base,
        "supervised": ancestry.supervised,
        "PPO": assistants.practised(ancestry.supervised, assistants.judges, ptx_coef=0.0),
        "PPO-ptx": assistants.policy,
        "PPO, five times β": assistants.practised(
            ancestry.supervised, assistants.judges, ptx_coef=0.0, kl_coef=MORE_BETA * recipe.kl_coef
        ),
    }
    measured = {name: assistants.measured("model", model) for name, model in models.items()}
    supervised = measured["supervised"]
    figures: dict[str, float] = {}
    for name, found in measured.items():
        figures[f"gold utility, {name}"] = found.figures["gold_utility"]
        figures |= {f"{axis}, {name}": found.figures[axis] for axis in AXES}
        figures[f"words, {name}"] = found.figures["length"]
    figures["win rate over base, supervised"] = win_rate(
        supervised.answers, measured["base"].answers, seed=0, draws=200
    ).mean
    for name in POLICIES:
        found = measured[name]
        figures[f"win rate over supervised, {name}"] = win_rate(
            found.answers, supervised.answers, seed=0, draws=200
        ).mean
        figures[f"rise in bits, {name}"] = rise(found.figures["bits_per_byte"], supervised.figures["bits_per_byte"])
        figures[f"KL, {name}"] = assistants.kl(models[name], found)
    gain = {name: figures[f"gold utility, {name}"] - figures["gold utility, supervised"] for name in POLICIES}
    for name in POLICIES[1:]:
        figures[f"share of PPO's gain, {name}"] = ratio(gain[name], gain["PPO"])
        figures[f"share of PPO's rise in bits, {name}"] = ratio(
            figures[f"rise in bits, {name}"], figures["rise in bits, PPO"]
        )
    return figures


def rise(after: float, before: float) -> float:
    """Return by how many percent a figure rose."""
    return 100 * (after / before - 1)


def ratio(part: float, whole: float) -> float:
    """Return a part's share of a whole; 0 where there is no whole to have a share of."""
    return part / whole if abs(whole) > 1e-9 else 0.0


ALIGNMENT_TAX = Phenomenon[Assistants](
    name="alignment_tax",
    claim="Each stage is preferred to the one before; ptx repairs PPO's tax, more β does not (arXiv:2203.02155).",
    measure=measure,
    effect=(
        "gold utility, base",
        "gold utility, supervised",
        "gold utility, PPO",
        "gold utility, PPO-ptx",
        "win rate over base, supervised",
        "win rate over supervised, PPO",
        "win rate over supervised, PPO-ptx",
        "rise in bits, PPO",
        "rise in bits, PPO-ptx",
        "share of PPO's gain, PPO-ptx",
        "share of PPO's rise in bits, PPO-ptx",
    ),
    control=(
        "gold utility, PPO, five times β",
        "win rate over supervised, PPO, five times β",
        "rise in bits, PPO, five times β",
        "share of PPO's gain, PPO, five times β",
        "share of PPO's rise in bits, PPO, five times β",
    ),
    units={
        **{f"rise in bits, {name}": "percent more bits per byte than supervised" for name in POLICIES},
        **{f"share of PPO's gain, {name}": "of PPO's" for name in POLICIES},
        **{f"share of PPO's rise in bits, {name}": "of PPO's" for name in POLICIES},
    },
)
