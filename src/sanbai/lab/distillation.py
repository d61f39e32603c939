"""A dense model keeps a share of what experts gained (Fedus et al. 2021, arXiv:2101.03961, section 4.2).

The paper's ladder (table 6, by the share of the teacher's gain over a dense model that a student keeps): the teacher's
probabilities alone 3 %, then starting from the teacher's weights that are no experts' 20 %, then 0.75 of the loss from
the text 29 %; and less with more experts compressed away (table 7). Here students of 4 and of 16 experts learn for as
long as the dense model did, on the same text. Control: the teacher's weights as a start and the text alone, which keeps
nothing in the paper; where teachers are young, the steps that they had already count.

The gain is in held-out bits per byte: kept = (dense - student) / (dense - teacher).
"""

from __future__ import annotations

from sanbai.foundation.artifacts import Artifact
from sanbai.lab.bench import Bench
from sanbai.lab.sparse import SPARSE, heldout_bits, sparse_shape, trained, training
from sanbai.lab.trials import Phenomenon
from sanbai.training.distill import DistillRecipe

TEACHERS = (4, 16)
LADDER = {
    "the teacher's probabilities": {"hard_share": 0.0, "start": "random"},
    "+ its weights as start": {"hard_share": 0.0, "start": "teacher"},
    "+ 0.75 of the text": {"hard_share": 0.75, "start": "teacher"},
}
WITHOUT_TEACHER = {"its weights, text alone": {"hard_share": 1.0, "start": "teacher"}}


def gain_kept(dense: float, teacher: float, student: float) -> float:
    """Return the share of a teacher's gain over the dense model that its student has; 0 where there is no gain."""
    return (dense - student) / (dense - teacher) if teacher < dense else 0.0


def measure(bench: Bench) -> dict[str, float]:
    """Train teachers and students and return the figures, and everybody's bits per byte beside them."""

    def bits(model: Artifact) -> float:
        return float(model.metrics["bits_per_byte"])

    evaluate = heldout_bits(bench)
    dense = bits(trained(bench, sparse_shape(bench.size, 0)))
    figures = {"bits per byte, dense": dense}
    for number in TEACHERS:
        teacher = trained(bench, sparse_shape(bench.size, number))
        figures[f"bits per byte, {number} experts"] = bits(teacher)
        for name, changes in {**LADDER, **WITHOUT_TEACHER}.items():
            recipe = DistillRecipe.model_validate({**training(bench.size), **changes})
            student = bits(bench.distilled(teacher, recipe, evaluate=evaluate))
            figures[f"bits per byte, {name}, {number} experts"] = student
            figures[f"{name}, {number} experts"] = gain_kept(dense, bits(teacher), student)
    return figures


_EFFECT = tuple(f"{name}, {number} experts" for number in TEACHERS for name in LADDER)
_CONTROL = tuple(f"{name}, {number} experts" for number in TEACHERS for name in WITHOUT_TEACHER)
DISTILLATION = Phenomenon(
    name="distillation",
    claim="A dense student keeps up to 29 % of what its teacher's experts gained (Switch, arXiv:2101.03961).",
    measure=measure,
    effect=_EFFECT,
    control=_CONTROL,
    units=dict.fromkeys((*_EFFECT, *_CONTROL), "share of the teacher's gain that is kept"),
    size=SPARSE,
)
