from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.progress import SilentProgress
from sanbai.foundation.recipe import RecipeSection
from sanbai.foundation.stage import Build, Job, run_stage
from sanbai.foundation.stop import StopSignal
from sanbai.foundation.workspace import Workspace

MakeArtifact = Callable[..., Artifact]


@pytest.fixture(scope="module")
def make_artifact(tmp_path_factory: pytest.TempPathFactory) -> MakeArtifact:
    """Runs a stage's function in a fresh workspace and returns its artifact."""

    def make(
        kind: str,
        build: Build,
        *,
        recipe: Mapping[str, RecipeSection] | None = None,
        parents: Mapping[str, Artifact] | None = None,
        seed: int = 1,
        folder: Path | None = None,
    ) -> Artifact:
        workspace = Workspace(folder or tmp_path_factory.mktemp("workspace"))
        workspace.create()
        return run_stage(
            Job(workspace, SilentProgress(), StopSignal()),
            kind=kind,
            name=kind,
            recipe=recipe or {},
            parents=parents or {},
            seed=seed,
            floor="data",
            num_steps=1,
            build=build,
        )

    return make
