"""How much is evaluated and how sure the figures shall be."""

from __future__ import annotations

from pydantic import Field

from sanbai.foundation.recipe import RecipeSection
from sanbai.generation.sampling import Sampling


class EvaluateRecipe(RecipeSection):
    """Section `[evaluate]`. At one half, 600 prompts give a win rate its 95 % interval of about ± 3 to 4 points."""

    num_prompts: int = Field(default=600, ge=1, le=1_000_000)
    """Held-out prompts that every model answers."""
    num_samples: int = Field(default=1, ge=1, le=100)
    """Answers to each prompt; more prompts tell more than more answers."""
    sampling: Sampling = Sampling(temperature=0.7, max_new_tokens=64)
    """Section `[evaluate.sampling]`: the one setting for every model."""
    num_documents: int = Field(default=200, ge=1, le=1_000_000)
    """Held-out documents that every model reads for its bits per byte."""
    num_choices: int = Field(default=20, ge=0, le=100_000)
    """Multiple-choice questions of each in-context task; 0 leaves few-shot evaluation out."""
    shots: tuple[int, ...] = (0, 1, 4)
    """Numbers of examples shown before a multiple-choice question."""
    shot_draws: int = Field(default=1, ge=1, le=100)
    """Draws of examples for each question."""
    batch_size: int = Field(default=64, ge=1, le=100_000)
    """Prompts answered at a time."""
    bootstrap_draws: int = Field(default=4_000, ge=200, le=100_000)
    """Resamples behind each interval; 4,000 leave an end uncertain by about 1/30 of the interval's width."""
    sample_tasks: tuple[str, ...] = ("riddle", "harmful_question", "passage_fact")
    """Tasks whose first prompts the report shows; where one is absent the next task that was asked takes its place."""
