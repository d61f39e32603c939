"""What a Transformer is made of: one row of choices, from which the block in `transformer.py` is built."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from sanbai.foundation.recipe import RecipeSection


class ModelConfig(RecipeSection):
    """The shape of a model. The defaults are the preset `tiny`: Llama's block, small enough to learn on two cores."""

    vocab_size: int = Field(default=1024, ge=2, le=1_000_000)
    """Number of token ids; taken from the tokenizer when a model is trained."""
    num_layers: int = Field(default=4, ge=1, le=1000)
    """Blocks, one after another."""
    width: int = Field(default=192, ge=1, le=100_000)
    """Numbers a position carries between blocks."""
    num_heads: int = Field(default=6, ge=1, le=1000)
    """Query heads of each attention."""
    num_kv_heads: int = Field(default=6, ge=1, le=1000)
    """Key and value heads; divides `num_heads`, neighbouring query heads share one."""
    head_width: int = Field(default=32, ge=1, le=1024)
    """Numbers in one head's query, key or value."""
    feed_forward: Literal["swiglu", "gelu_tanh"] = "swiglu"
    """`swiglu`: down(silu(gate x) * up x), as Llama; `gelu_tanh`: down(gelu(up x)) with GPT-2's tanh form."""
    feed_forward_width: int = Field(default=512, ge=1, le=1_000_000)
    """Numbers between the feed-forward's projections."""
    norm: Literal["rms", "layer"] = "rms"
    """`rms`: weight x / rms(x); `layer`: mean removed too, and a bias added. Stands before each half of a block."""
    norm_epsilon: float = Field(default=1e-6, gt=0.0, le=0.1)
    """Added to the mean square or the variance."""
    positions: Literal["rotary", "learned"] = "rotary"
    """`rotary`: queries and keys are turned by their position; `learned`: each position adds a vector of its own."""
    max_positions: int = Field(default=512, ge=1, le=10_000_000)
    """Longest context."""
    rope_theta: float = Field(default=10_000.0, gt=1.0, le=1e9)
    """Base of the rotary wavelengths; of no effect with learned positions."""
    bias: bool = False
    """Whether the projections of attention and feed-forward add a bias."""
    initial_std: float = Field(default=0.02, gt=0.0, le=1.0)
    """Standard deviation of the blocks' fresh matrices, those that write into the residual stream divided by
    sqrt(2 layers) as GPT-2's; embeddings start at 0.02. A narrow model learns faster from more: at width 192, 0.06."""
    tied_embeddings: bool = True
    """Whether the language-model head is the token embedding itself."""

    @model_validator(mode="after")
    def _check_fit(self) -> Self:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_kv_heads {self.num_kv_heads} does not divide num_heads {self.num_heads}")
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(f"head_width {self.head_width} is odd, and rotary positions turn pairs")
        return self

    def with_vocabulary(self, vocab_size: int) -> ModelConfig:
        """Return the same shape for a tokenizer of `vocab_size` ids."""
        return ModelConfig.model_validate({**self.model_dump(), "vocab_size": vocab_size})
