"""What an adapter is made of: section `[adapter]` of a recipe."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from sanbai.foundation.recipe import RecipeSection

Projection = Literal["query", "key", "value", "out", "gate", "up", "down"]


class AdapterRecipe(RecipeSection):
    """Section `[adapter]`: whether fine-tuning trains the model itself or a small addition to it."""

    method: Literal["none", "lora", "prompt", "p_tuning", "prefix"] = "none"
    """`none`: all weights learn; `lora`: products of two thin matrices beside chosen projections (Hu et al. 2021,
    arXiv:2106.09685); `prompt`: vectors read before each text (Lester et al. 2021, arXiv:2104.08691); `p_tuning`: the
    same, written by a small network (Liu et al. 2021, arXiv:2103.10385); `prefix`: keys and values that each layer sees
    before each text (Li and Liang 2021, arXiv:2101.00190). Only `lora` can be merged, and so practise in a round: there
    reward model, value model and policy are adapters too, over one set of weights."""
    rank: int = Field(default=8, ge=1, le=10_000)
    """Of LoRA's products."""
    alpha: float = Field(default=16.0, gt=0.0, le=1e6)
    """LoRA's products are multiplied by alpha / rank."""
    rank_stabilised: bool = False
    """Whether they are multiplied by alpha / sqrt(rank) instead (Kalajdzievski 2023, arXiv:2312.03732)."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of LoRA's inputs set to 0 in fine-tuning; reward model, practice and direct preference set none to 0."""
    targets: tuple[Projection, ...] = Field(default=("query", "value"), min_length=1)
    """The projections beside which LoRA stands: of attention `query`, `key`, `value`, `out`, of feed-forwards `gate`,
    `up`, `down`. GPT-1 and GPT-2 hold query, key and value in one matrix, which is adapted whole if one is named.
    Experts are left alone."""
    num_virtual_tokens: int = Field(default=20, ge=1, le=100_000)
    """Positions that the other methods put before each text; they count towards `max_positions`."""
    encoder_width: int = Field(default=128, ge=1, le=100_000)
    """Inner width of the network of `p_tuning`."""

    @model_validator(mode="after")
    def _check_targets(self) -> Self:
        if len(set(self.targets)) < len(self.targets):
            raise ValueError(f"targets {list(self.targets)} name a projection twice")
        return self

    @property
    def scale(self) -> float:
        """What LoRA's products are multiplied by."""
        return self.alpha / (self.rank**0.5 if self.rank_stabilised else self.rank)
