"""Learning rates over a run, as pure functions of the step; nothing to save, nothing to resume."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["cosine", "inverse_root"]
"""What follows a warmup, by name."""
FINAL_SHARE = 0.1
"""Where the cosine ends, as a share of the full rate: InstructGPT's and GPT-3's 10 %."""


def scheduled_rate(step: int, *, schedule: Schedule, peak: float, num_steps: int, warmup_steps: int) -> float:
    """Return the rate of step 0, 1, ... of the schedule that a recipe names; see the two functions below."""
    if schedule == "inverse_root":
        return inverse_root_rate(step, peak=peak, warmup_steps=warmup_steps)
    return cosine_rate(step, peak=peak, num_steps=num_steps, warmup_steps=warmup_steps)


def cosine_rate(step: int, *, peak: float, num_steps: int, warmup_steps: int) -> float:
    """Return the rate of step 0, 1, ...: up in a line over the warmup, then down a half cosine to 10 % of the peak.

    The first step already moves (1 / warmup_steps of the peak); the last one, num_steps - 1, has 10 %.

    Args:
        step: steps done before this one.
        peak: the full rate.
        num_steps: length of the run.
        warmup_steps: 0 for none.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    span = max(1, num_steps - 1 - warmup_steps)
    progress = min(1.0, (step - warmup_steps) / span)
    return peak * (FINAL_SHARE + (1 - FINAL_SHARE) * (1 + math.cos(math.pi * progress)) / 2)


def inverse_root_rate(step: int, *, peak: float, warmup_steps: int) -> float:
    """Return the rate of step 0, 1, ...: up in a line over the warmup, then peak · sqrt(warmup_steps / steps).

    T5's and Switch's (Raffel et al. 2020, arXiv:1910.10683, section 3.1.2). It knows no end, so a loss on the way is
    that of a run that ends there.

    Args:
        step: steps done before this one.
        peak: the full rate.
        warmup_steps: 0 counts as 1.
    """
    done, warmup = step + 1, max(1, warmup_steps)
    return peak * min(done / warmup, math.sqrt(warmup / done))


def linear_rate(step: int, *, peak: float, num_steps: int, warmup_steps: int) -> float:
    """Return the rate of step 0, 1, ...: up in a line over the warmup, then down in one that meets 0 after the last.

    Args:
        step: steps done before this one.
        peak: the full rate.
        num_steps: length of the run.
        warmup_steps: 0 for none.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * (num_steps - step) / max(1, num_steps - warmup_steps)


def warmup_rate(step: int, *, peak: float, warmup_steps: int, start_share: float = 0.1) -> float:
    """Return a rate that climbs in a line from `start_share` of the peak and then stays: InstructGPT's for PPO."""
    if step >= warmup_steps:
        return peak
    return peak * (start_share + (1 - start_share) * step / warmup_steps)
