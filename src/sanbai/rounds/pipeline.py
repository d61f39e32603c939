"""The stages of a round, each from its parents to its artifact; asking again for one that exists costs nothing.

Nothing here trains or measures: each method opens artifacts, hands them to the floor below and names what comes out.
"""

from __future__ import annotations

from sanbai.rounds.stages.ancestry import AncestryStages
from sanbai.rounds.stages.direct import DirectStages
from sanbai.rounds.stages.evaluation import EvaluationStages
from sanbai.rounds.stages.judges import JudgeStages
from sanbai.rounds.stages.labels import LabelStages
from sanbai.rounds.stages.offshoots import OffshootStages
from sanbai.rounds.stages.practice import PracticeStages


class Pipeline(
    AncestryStages,
    OffshootStages,
    LabelStages,
    JudgeStages,
    DirectStages,
    PracticeStages,
    EvaluationStages,
):
    """One recipe at work in one workspace: every stage, none of which overrides another's."""
