"""More experts at equal work a token learn faster (Fedus et al. 2021, arXiv:2101.03961, sections 3.1 and 3.2).

A dense model and models with experts in every second layer read the same text in the same order. Measured: how many
times sooner, in steps and in time, each has the dense model's last held-out bits per byte. Time is steps times the
wall-clock of a step. Control: a single expert, which is a dense layer with an expert's initialisation and a router
that has no choice.
"""

from __future__ import annotations

from sanbai.lab.bench import Bench
from sanbai.lab.sparse import SPARSE, sparse_shape, speed_up, step_seconds, trained
from sanbai.lab.trials import Phenomenon

NUMBERS = (1, 2, 4, 8, 16)
#: In the paper, figure 6: 64 experts have the dense model's loss 7.5 times sooner.
STEPS, TIME, BITS = "speed-up in steps", "speed-up in time", "bits per byte"


def called(figure: str, num_experts: int) -> str:
    """Return a figure's name."""
    return f"{figure}, {num_experts} expert{'s' if num_experts > 1 else ''}" if num_experts else f"{figure}, dense"


def measure(bench: Bench) -> dict[str, float]:
    """Train the models and return the figures."""
    shapes = {number: sparse_shape(bench.size, number) for number in (0, *NUMBERS)}
    artifacts = {number: trained(bench, config) for number, config in shapes.items()}
    curves = {number: bench.curve(artifact, "bits_per_byte") for number, artifact in artifacts.items()}
    seconds = step_seconds(bench, {str(number): config for number, config in shapes.items()})
    figures = {called(BITS, number): curve[-1][1] for number, curve in curves.items()}
    for number in NUMBERS:
        in_steps = speed_up(curves[number], curves[0])
        figures[called(STEPS, number)] = in_steps
        figures[called(TIME, number)] = in_steps * seconds["0"] / seconds[str(number)]
        figures[called("time of a step", number)] = seconds[str(number)] / seconds["0"]
    return figures


_MANY = NUMBERS[1:]
SPARSE_AGAINST_DENSE = Phenomenon(
    name="sparse_against_dense",
    claim="Experts learn faster at equal work a token (Switch, arXiv:2101.03961: 64 experts 7.5 times).",
    measure=measure,
    effect=tuple(called(figure, number) for figure in (STEPS, TIME, BITS) for number in _MANY),
    control=(called(STEPS, 1), called(TIME, 1), called(BITS, 1), called(BITS, 0)),
    units={
        **{called(figure, number): "times as fast as dense" for figure in (STEPS, TIME) for number in NUMBERS},
        **{called(BITS, number): "held-out bits per byte" for number in (0, *NUMBERS)},
    },
    size=SPARSE,
)
