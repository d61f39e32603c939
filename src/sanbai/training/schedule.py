"""Learning rates over a run, as pure functions of the step; nothing to save, nothing to resume."""

from __future__ import annotations

import math

FINAL_SHARE = 0.1
"""Where the cosine ends, as a share of the full rate: InstructGPT's and GPT-3's 10 %."""


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
