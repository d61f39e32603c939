"""All phenomena by name."""

from __future__ import annotations

from sanbai.lab.adapters import ADAPTERS_PHENOMENON
from sanbai.lab.clozes import CLOZES
from sanbai.lab.distillation import DISTILLATION
from sanbai.lab.instruction_tuning import INSTRUCTION_TUNING
from sanbai.lab.languages import LANGUAGES
from sanbai.lab.next_sentence import NEXT_SENTENCE
from sanbai.lab.router_stability import ROUTER_STABILITY
from sanbai.lab.sparse_against_dense import SPARSE_AGAINST_DENSE
from sanbai.lab.transfer import TRANSFER
from sanbai.lab.trials import Phenomenon

PHENOMENA: dict[str, Phenomenon] = {
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
    )
}
