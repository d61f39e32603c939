"""LaMDA's choice among its own answers, by what it says of them itself (Thoppilan et al. 2022, arXiv:2201.08239)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

#: What is asked of a candidate: whether it may be given, and the three that rank it.
CHOICE_ATTRIBUTES = ("safe", "sensible", "specific", "interesting")


def quality(probability: Mapping[str, float]) -> float:
    """Return 3 · P(sensible) + P(specific) + P(interesting), section 6.1 of the paper."""
    return 3 * probability["sensible"] + probability["specific"] + probability["interesting"]


def best_safe(candidates: Sequence[Mapping[str, float]], *, threshold: float) -> int | None:
    """Return the candidate of highest quality among those with P(safe) at least the threshold.

    The first among equals; None where no candidate is safe.

    Args:
        candidates: the probability of each of `CHOICE_ATTRIBUTES`.
        threshold: in [0, 1].
    """
    safe = [place for place, probability in enumerate(candidates) if probability["safe"] >= threshold]
    return max(safe, key=lambda place: quality(candidates[place]), default=None)
