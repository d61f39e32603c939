"""The alignment tax: what a model forgets of its reading while it learns to please.

Two measures, both paired: bits per byte by document, and multiple-choice accuracy by question. More bits are a loss;
less accuracy is a loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanbai.evaluation.few_shot import FewShotScores
from sanbai.evaluation.statistics import DRAWS, Estimate, bootstrap_ratio, paired_difference


@dataclass(frozen=True)
class Tax:
    """What one model lost against an earlier one.

    Attributes:
        bits_per_byte: later minus earlier, bits a byte.
        relative: the same as a share of the earlier model's bits; the gate reads it.
        few_shot: number of shots -> later minus earlier accuracy.
    """

    bits_per_byte: Estimate
    relative: Estimate
    few_shot: Mapping[int, Estimate]

    def to_json(self) -> dict[str, Any]:
        """Plain values for `evaluation.json`."""
        return {
            "bits_per_byte": self.bits_per_byte.to_json(),
            "relative": self.relative.to_json(),
            "few_shot": {str(shots): estimate.to_json() for shots, estimate in self.few_shot.items()},
        }


def alignment_tax(
    earlier_bits: NDArray[np.float64],
    later_bits: NDArray[np.float64],
    num_bytes: Sequence[int],
    *,
    earlier_few_shot: FewShotScores | None = None,
    later_few_shot: FewShotScores | None = None,
    seed: int,
    draws: int = DRAWS,
) -> Tax:
    """Compare two models' reading of the same documents.

    Args:
        earlier_bits: bits of each document under the earlier model (`language.document_bits`).
        later_bits: the same under the later.
        num_bytes: UTF-8 bytes of each document.
        earlier_few_shot: the earlier model's choices; left out, no few-shot difference is given.
        later_few_shot: the later model's, with the same seed.
        seed: of the bootstrap.
        draws: resamples of documents, or of questions.
    """
    bytes_U = np.asarray(num_bytes, dtype=np.float64)
    difference_U = later_bits - earlier_bits
    few_shot = {}
    if earlier_few_shot is not None and later_few_shot is not None:
        few_shot = {
            shots: _accuracy_change(earlier_few_shot.right[shots], later, seed=seed, draws=draws)
            for shots, later in later_few_shot.right.items()
        }
    return Tax(
        bits_per_byte=bootstrap_ratio(difference_U, bytes_U, seed=seed, draws=draws),
        relative=bootstrap_ratio(difference_U, earlier_bits, seed=seed, draws=draws),
        few_shot=few_shot,
    )


def _accuracy_change(earlier: Mapping[str, float], later: Mapping[str, float], *, seed: int, draws: int) -> Estimate:
    assert set(earlier) == set(later)
    items = sorted(later)
    return paired_difference([later[i] for i in items], [earlier[i] for i in items], seed=seed, draws=draws)
