"""A router in bfloat16 and large initial matrices unsettle training (Fedus et al. 2021, arXiv:2101.03961, section 2.4).

The paper: a model trained wholly in bfloat16 diverges, one whose router alone is in float32 does not (table 2); with a
tenth of the usual initial scale the loss early in training spreads by 0.01 over repeats instead of 0.68 (table 3).
Here five seeds of each on one text, early in training, at the usual rate and at four times it. Control: what the paper
recommends, a router in float32 and a scale of 0.1. The scale is of the experts and their router alone; the paper's is
of the whole model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sanbai.lab.bench import Bench
from sanbai.lab.sparse import RATE, SPARSE, sparse_shape, trained
from sanbai.lab.trials import Phenomenon

NUM_EXPERTS = 8
CASES: dict[str, dict[str, Any]] = {
    "float32 router, scale 0.1": {},
    "bfloat16 router, scale 0.1": {"router_precision": "bfloat16"},
    "float32 router, scale 1.0": {"initial_scale": 1.0},
}
RATES = {"usual rate": RATE, "4 times the rate": 4 * RATE}


def measure(bench: Bench) -> dict[str, float]:
    """Train the models and return their last held-out bits per byte; `COIN_BITS` of one that diverged."""
    bench = replace(bench, text_seed=1)
    figures = {}
    for rate_name, rate in RATES.items():
        for case, experts in CASES.items():
            model = trained(bench, sparse_shape(bench.size, NUM_EXPERTS, **experts), learning_rate=rate)
            figures[f"{case}, {rate_name}"] = float(model.metrics["bits_per_byte"])
    return figures


_NAMES = [f"{case}, {rate}" for rate in RATES for case in CASES]
_CONTROL = tuple(name for name in _NAMES if name.startswith("float32 router, scale 0.1"))
ROUTER_STABILITY = Phenomenon(
    name="router_stability",
    claim="A float32 router and a tenth of the initial scale steady training (Switch, arXiv:2101.03961, section 2.4).",
    measure=measure,
    effect=tuple(name for name in _NAMES if name not in _CONTROL),
    control=_CONTROL,
    units=dict.fromkeys(_NAMES, "held-out bits per byte after 120 steps"),
    size=replace(SPARSE, num_steps=120),
    num_seeds=5,
)
