"""How a round's stage is run: by one recipe in one workspace, its name made of all that determines it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.recipe import RecipeSection
from sanbai.foundation.stage import Build, Job, run_stage
from sanbai.rounds.material import Material
from sanbai.rounds.recipe import Recipe

#: What lies above the stages' floors and decides what they are given.
MODULES = (
    "rounds/material.py",
    "rounds/model_labeler.py",
    "rounds/stages/ancestry.py",
    "rounds/stages/direct.py",
    "rounds/stages/evaluation.py",
    "rounds/stages/imitation.py",
    "rounds/stages/judges.py",
    "rounds/stages/labels.py",
    "rounds/stages/offshoots.py",
    "rounds/stages/opinions.py",
    "rounds/stages/practice.py",
    "rounds/stages/stage_runner.py",
    "rounds/stages/watching.py",
    "rounds/tasks.py",
)


@dataclass(frozen=True)
class StageRunner:
    """One recipe at work in one workspace."""

    job: Job
    recipe: Recipe
    material: Material
    start: Artifact | None = None
    """The model to start from, tokenizer included; where there is none, both are made."""

    def _with_compute(self, **sections: RecipeSection) -> dict[str, RecipeSection]:
        return {**sections, "compute": self.recipe.compute}

    def _source_sections(self, *names: str) -> dict[str, RecipeSection]:
        """Return the sections of the material, and others by name."""
        source = self.recipe.material
        return {source: getattr(self.recipe, source), **{name: getattr(self.recipe, name) for name in names}}

    def _run(
        self,
        kind: str,
        name: str,
        floor: str,
        sections: Mapping[str, RecipeSection],
        parents: Mapping[str, Artifact],
        num_steps: int,
        build: Build,
        inputs: Mapping[str, str] | None = None,
    ) -> Artifact:
        reads_material = self.recipe.material in sections
        return run_stage(
            self.job,
            kind=kind,
            name=name,
            recipe=sections,
            parents=parents,
            seed=self.recipe.seed,
            floor=floor,
            num_steps=num_steps,
            build=build,
            modules=MODULES,
            inputs={**(self.material.fingerprint() if reads_material else {}), **(inputs or {})},
        )
