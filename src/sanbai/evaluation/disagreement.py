"""Whether reward models that disagree are wrong: how far their margins lie apart, and how often that tells an error.

One model's margin says how sure it is; several models say how sure one may be of them. If their spread predicts errors,
it may choose what people are asked next and warn where practice exploits a judge; if it does not, it may not.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanbai.evaluation.reliability import is_right
from sanbai.evaluation.statistics import DRAWS, Estimate, bootstrap_auroc, bootstrap_mean

NUM_PARTS = 3


@dataclass(frozen=True)
class Disagreement:
    """Several reward models on the same pairs.

    Attributes:
        num_models: how many.
        accuracy: of their mean margin.
        spread: mean over pairs of the standard deviation of the models' margins, in units of a typical margin.
        error_by_spread: chance that a pair which the mean margin gets wrong has a larger spread than one that it gets
            right; ½ says nothing. None where all are right or all wrong.
        error_by_margin: the same of a smaller mean margin, which costs no second model: what the spread must beat.
        accuracy_by_spread: accuracy on the pairs of least, middle and most spread.
    """

    num_models: int
    accuracy: Estimate
    spread: float
    error_by_spread: Estimate | None
    error_by_margin: Estimate | None
    accuracy_by_spread: Sequence[Estimate]

    def to_json(self) -> dict[str, Any]:
        """Plain values for `evaluation.json`; what is None is left out."""
        chances = {"error_by_spread": self.error_by_spread, "error_by_margin": self.error_by_margin}
        return {
            "num_models": self.num_models,
            "accuracy": self.accuracy.to_json(),
            "spread": self.spread,
            **{name: estimate.to_json() for name, estimate in chances.items() if estimate},
            "accuracy_by_spread": [estimate.to_json() for estimate in self.accuracy_by_spread],
        }


def disagreement(
    margin_MN: NDArray[np.float64], prompts: Sequence[Hashable], *, seed: int, draws: int = DRAWS
) -> Disagreement:
    """Return how far M reward models lie apart on N pairs.

    Each model's margins are first divided by their root mean square: rankings fix a reward's order, training its scale.

    Args:
        margin_MN: reward of the chosen less reward of the rejected answer, at least two models.
        prompts: of each pair, the unit of the intervals.
        seed: of the bootstrap.
        draws: resamples.
    """
    assert len(margin_MN) > 1
    typical_M1 = np.sqrt((margin_MN**2).mean(axis=1, keepdims=True))
    scaled_MN = margin_MN / np.where(typical_M1 > 0, typical_M1, 1.0)
    mean_N, spread_N = scaled_MN.mean(axis=0), scaled_MN.std(axis=0)
    right_N = is_right(mean_N)
    decided = np.flatnonzero(mean_N != 0)
    is_wrong = right_N[decided] == 0
    decided_prompts = [prompts[place] for place in decided.tolist()]

    def tells_errors(score_N: NDArray[np.float64]) -> Estimate | None:
        if is_wrong.all() or not is_wrong.any():
            return None
        return bootstrap_auroc(score_N[decided], is_wrong, decided_prompts, seed=seed, draws=draws)

    parts = [part.tolist() for part in np.array_split(np.argsort(spread_N, kind="stable"), NUM_PARTS) if len(part)]
    return Disagreement(
        num_models=len(margin_MN),
        accuracy=bootstrap_mean(right_N, prompts, seed=seed, draws=draws),
        spread=float(spread_N.mean()),
        error_by_spread=tells_errors(spread_N),
        error_by_margin=tells_errors(-np.abs(mean_N)),
        accuracy_by_spread=[
            bootstrap_mean(right_N[part], [prompts[place] for place in part], seed=seed, draws=draws) for part in parts
        ],
    )
