"""The pipeline is the sum of its stages, and what decides on a stage's input is part of its artifact's name."""

from __future__ import annotations

from pathlib import Path

import sanbai.rounds.stages
from sanbai.rounds.pipeline import Pipeline
from sanbai.rounds.stages.stage_runner import MODULES, StageRunner


def test_every_file_of_stages_is_part_of_their_artifacts_names() -> None:
    (folder,) = map(Path, sanbai.rounds.stages.__path__)
    files = {f"rounds/stages/{path.name}" for path in folder.glob("*.py") if path.name != "__init__.py"}
    assert files == {module for module in MODULES if module.startswith("rounds/stages/")}
    assert all((folder.parents[1] / module).is_file() for module in MODULES)


def test_no_stage_overrides_anothers() -> None:
    parts = [part for part in Pipeline.__mro__ if part not in {Pipeline, StageRunner, object}]
    names = [name for part in parts for name, value in vars(part).items() if callable(value)]
    assert len(names) == len(set(names))
    assert not set(names) & {name for name, value in vars(StageRunner).items() if callable(value)}
