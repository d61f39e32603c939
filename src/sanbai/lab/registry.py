"""All phenomena by name: those of benches, and those of whole assistants."""

from __future__ import annotations

from typing import Any

from sanbai.lab.adapters import ADAPTERS_PHENOMENON
from sanbai.lab.alignment_tax import ALIGNMENT_TAX
from sanbai.lab.assistants import Assistants
from sanbai.lab.bench import Bench
from sanbai.lab.cheaper_labels import CHEAPER_LABELS
from sanbai.lab.clozes import CLOZES
from sanbai.lab.distillation import DISTILLATION
from sanbai.lab.hostile_labelers import HOSTILE_LABELERS
from sanbai.lab.instruction_tuning import INSTRUCTION_TUNING
from sanbai.lab.labeler_folds import LABELER_FOLDS
from sanbai.lab.languages import LANGUAGES
from sanbai.lab.length_liking import LENGTH_LIKING
from sanbai.lab.named_faults import NAMED_FAULTS
from sanbai.lab.next_sentence import NEXT_SENTENCE
from sanbai.lab.over_optimisation import OVER_OPTIMISATION
from sanbai.lab.preference_methods import PREFERENCE_METHODS
from sanbai.lab.recollected_rankings import RECOLLECTED_RANKINGS
from sanbai.lab.reward_curves import REWARD_CURVES
from sanbai.lab.router_stability import ROUTER_STABILITY
from sanbai.lab.sparse_against_dense import SPARSE_AGAINST_DENSE
from sanbai.lab.stale_practice import STALE_PRACTICE
from sanbai.lab.supervise_epochs import SUPERVISE_EPOCHS
from sanbai.lab.transfer import TRANSFER
from sanbai.lab.trials import Phenomenon

PHENOMENA: dict[str, Phenomenon[Bench]] = {
    phenomenon.name: phenomenon
    for phenomenon in (
        CLOZES,
        NEXT_SENTENCE,
        TRANSFER,
        INSTRUCTION_TUNING,
        ADAPTERS_PHENOMENON,
        SPARSE_AGAINST_DENSE,
        ROUTER_STABILITY,
        LANGUAGES,
        DISTILLATION,
        LABELER_FOLDS,
        REWARD_CURVES,
        CHEAPER_LABELS,
    )
}
#: Tables about a recipe's assistants; in this order each finds most of its models made.
EVIDENCE: dict[str, Phenomenon[Assistants]] = {
    phenomenon.name: phenomenon
    for phenomenon in (
        ALIGNMENT_TAX,
        PREFERENCE_METHODS,
        OVER_OPTIMISATION,
        RECOLLECTED_RANKINGS,
        SUPERVISE_EPOCHS,
        LENGTH_LIKING,
        HOSTILE_LABELERS,
        NAMED_FAULTS,
        STALE_PRACTICE,
    )
}
KNOWN: dict[str, Phenomenon[Any]] = {**PHENOMENA, **EVIDENCE}
