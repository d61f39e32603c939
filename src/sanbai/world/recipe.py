"""The recipe section `[world]`: how large the village is, how dirty its text, how faulty its demonstrations."""

from __future__ import annotations

from pydantic import Field

from sanbai.foundation.recipe import RecipeSection


class WorldRecipe(RecipeSection):
    """Everything about the tiny world that is a choice; shares are fractions of one."""

    num_people: int = Field(64, ge=24, le=70)
    """Villagers, in families of two or three generations."""
    heldout_share: float = Field(0.25, ge=0.05, le=0.5)
    """Share of villagers (whole households) that no training prompt ever names."""

    document_bytes: int = Field(14_000_000, ge=1_000, le=1_000_000_000)
    """UTF-8 bytes of documents to write, dirt included."""
    chinese_share: float = Field(0.05, ge=0.0, le=0.5)
    """Share of the document bytes that is Chinese."""
    exercise_share: float = Field(0.55, ge=0.0, le=0.9)
    """Share of the English document bytes in the form of questions and answers; the rest tells and describes."""
    exact_duplicate_share: float = Field(0.02, ge=0.0, le=0.2)
    """Share of documents that repeat an earlier one letter for letter."""
    near_duplicate_share: float = Field(0.02, ge=0.0, le=0.2)
    """Share of documents that repeat an earlier long one with a word or two changed."""
    boilerplate_share: float = Field(0.02, ge=0.0, le=0.2)
    """Share of documents wrapped in lines that many others carry too."""
    gibberish_share: float = Field(0.01, ge=0.0, le=0.2)
    """Share of documents that are noise."""
    contact_share: float = Field(0.02, ge=0.0, le=0.2)
    """Share of documents with an invented e-mail address or telephone number."""
    insult_share: float = Field(0.01, ge=0.0, le=0.2)
    """Share of documents with an insult from the invented list."""

    few_shot_share: float = Field(0.3, ge=0.0, le=1.0)
    """Share of prompts with two solved examples first, among tasks short enough for them."""
    user_like_share: float = Field(0.25, ge=0.0, le=1.0)
    """Share of prompts wrapped in the small talk of a user."""

    continued_share: float = Field(0.22, ge=0.0, le=1.0)
    """Share of demonstrations that come as a further turn of the conversation before, which asked something else."""
    wrong_share: float = Field(0.10, ge=0.0, le=1.0)
    """Share of demonstrations with a wrong answer, where the task has a plausible wrong one."""
    wordy_share: float = Field(0.25, ge=0.0, le=1.0)
    """Share of demonstrations padded with talk that nobody asked for."""
    obeying_share: float = Field(0.35, ge=0.0, le=1.0)
    """Share of demonstrations for harmful requests that obey."""
    bluffing_share: float = Field(0.40, ge=0.0, le=1.0)
    """Share of demonstrations that invent an answer nobody can know, or agree with a false premise."""
    unconstrained_share: float = Field(0.20, ge=0.0, le=1.0)
    """Share of demonstrations that forget a constraint, where the task has one."""

    labeler_noise: float = Field(0.225, gt=0.0, le=2.0)
    """Mean standard deviation of a labeler's noise, in units of utility (a perfect answer is worth about 1)."""
    labeler_step: float = Field(0.1, gt=0.0, le=1.0)
    """Width of one grade in units of utility; answers of one grade tie."""
    length_liking: float = Field(0.06, ge=0.0, le=1.0)
    """Mean extra utility that a labeler sees in an answer of 40 words or more, in proportion below."""
