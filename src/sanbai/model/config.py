"""What a Transformer is made of: one row of choices, from which the block in `transformer.py` is built."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sanbai.foundation.recipe import RecipeSection
from sanbai.model.experts import ExpertsConfig

Mask = Literal["causal", "full", "prefix", "banded"]
FeedForwardKind = Literal["swiglu", "geglu", "geglu_tanh", "relu", "squared_relu", "gelu", "gelu_tanh", "quick_gelu"]
Projection = Literal["qkv", "out", "feed_forward"]
Positive = Annotated[int, Field(ge=1, le=1_000_000)]


class RopeScaling(RecipeSection):
    """How rotary wavelengths are stretched, so that a model reads further than it was trained on."""

    kind: Literal["none", "linear", "llama3", "yarn"] = "none"
    """`linear`: every wavelength times `factor`; `llama3`: only the long ones, as Llama 3.1; `yarn`: as Peng et al.
    2023, arXiv:2309.00071, whose ramp lies between the two turns below, and attention grows by 0.1 ln(factor) + 1."""
    factor: float = Field(default=8.0, ge=1.0, le=10_000.0)
    """How many times longer the longest wavelengths become."""
    original_positions: int = Field(default=8192, ge=1, le=10_000_000)
    """The context before; of no effect with `linear`."""
    slow_turns: float = Field(default=1.0, gt=0.0, le=1000.0)
    """Wavelengths that turn less often than this over the old context are stretched whole."""
    fast_turns: float = Field(default=4.0, gt=0.0, le=1000.0)
    """Those that turn more often stay as they are; between the two the change is gradual. YaRN's own is 32."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.slow_turns >= self.fast_turns:
            raise ValueError(f"slow_turns {self.slow_turns} is not below fast_turns {self.fast_turns}")
        return self


class ModelConfig(RecipeSection):
    """The shape of a model. The defaults are the preset `tiny`: Llama's block, small enough to learn on two cores."""

    vocab_size: int = Field(default=1024, ge=2, le=1_000_000)
    """Number of token ids; taken from the tokenizer when a model is trained."""
    num_layers: int = Field(default=4, ge=1, le=1000)
    """Blocks, one after another; of the decoder where there is an encoder too."""
    distinct_layers: Positive | Literal["all"] = "all"
    """Blocks with weights of their own; the layers go round them in turn. ALBERT has 1 (arXiv:1909.11942)."""
    encoder_layers: int = Field(default=0, ge=0, le=1000)
    """Blocks of an encoder that sees its whole text, and whose result every block of the decoder looks at."""
    width: int = Field(default=192, ge=1, le=100_000)
    """Numbers a position carries between blocks."""
    embedding_width: Positive | Literal["width"] = "width"
    """Numbers of an embedding; if it is not the blocks' width, one matrix leads from the one to the other."""
    num_heads: int = Field(default=6, ge=1, le=1000)
    """Query heads of each attention."""
    num_kv_heads: int = Field(default=6, ge=1, le=1000)
    """Key and value heads; divides `num_heads`, neighbouring query heads share one."""
    head_width: int = Field(default=32, ge=1, le=1024)
    """Numbers in one head's query, key or value."""
    scaled_attention: bool = True
    """Whether scores are divided by the root of `head_width`; T5 and GPT-Neo leave that to the weights."""
    query_key_norm: bool = False
    """Whether each query and key passes a norm of its own before it is turned, as in Qwen3."""
    masks: tuple[Mask, ...] = Field(default=("causal",), min_length=1)
    """Who looks at whom, layer by layer, over and over. `causal`: back; `full`: everywhere; `prefix`: everywhere
    within the part given as prefix, else back; `banded`: back, `band_width` positions with its own. GPT-3 takes
    `["causal", "banded"]`."""
    band_width: int = Field(default=256, ge=1, le=10_000_000)
    """Of no effect without a banded layer."""
    feed_forward: FeedForwardKind = "swiglu"
    """Names in -glu: down(f(gate x) * up x), f SiLU (Llama), GELU or its tanh form (T5 v1.1); the others:
    down(f(up x)), `squared_relu` (max(0, x))^2, `gelu_tanh` as GPT-2, `quick_gelu` x sigmoid(1.702 x)."""
    feed_forward_width: int = Field(default=512, ge=1, le=1_000_000)
    """Numbers between the feed-forward's projections."""
    sparse_layers: Literal["none", "every_second", "all"] = "none"
    """Layers whose feed-forward is a mixture of experts: every second one, from the second on, or all."""
    experts: ExpertsConfig = ExpertsConfig()
    """Of no effect without sparse layers; each expert is as wide as a feed-forward."""
    norm: Literal["rms", "layer", "none"] = "rms"
    """`rms`: weight x / rms(x), a layer norm without mean; `layer`: mean removed too, and a bias added."""
    norm_place: Literal["before", "after"] = "before"
    """`before`: x + f(norm(x)) and one last norm, as GPT-2; `after`: norm(x + f(x)), as GPT-1 and BERT."""
    norm_epsilon: float = Field(default=1e-6, gt=0.0, le=0.1)
    """Added to the mean square or the variance."""
    embedding_norm: bool = False
    """Whether the sum of embeddings passes a norm, as in BERT."""
    positions: Literal["rotary", "learned", "sinusoidal", "relative", "none"] = "rotary"
    """`rotary`: queries and keys are turned by their position; `learned`: each position adds a vector of its own;
    `sinusoidal`: a fixed one; `relative`: T5's, each head adds a learned number to its score for each distance."""
    max_positions: int = Field(default=512, ge=1, le=10_000_000)
    """Longest context; relative positions know no longest."""
    rope_theta: float = Field(default=10_000.0, gt=1.0, le=1e9)
    """Base of the rotary wavelengths; of no effect with other positions."""
    rope_scaling: RopeScaling = RopeScaling()
    """Of no effect without rotary positions."""
    relative_buckets: int = Field(default=32, ge=4, le=10_000)
    """Classes of distance: the near ones one each, the far ones by powers; of no effect with other positions."""
    relative_distance: int = Field(default=128, ge=2, le=1_000_000)
    """From here on all distances are one class."""
    num_token_types: int = Field(default=0, ge=0, le=1000)
    """Vectors that tell parts of the input apart, BERT's first and second sentence."""
    num_task_types: int = Field(default=0, ge=0, le=1000)
    """Vectors that tell tasks apart, as in ERNIE."""
    bias: bool = False
    """Whether projections of attention and feed-forward add a bias."""
    bias_places: tuple[Projection, ...] = ("qkv", "out", "feed_forward")
    """Which of them; all, or Qwen2's `["qkv"]`. Of no effect without `bias`."""
    initial_std: float = Field(default=0.02, gt=0.0, le=1.0)
    """Standard deviation of the blocks' fresh matrices, those that write into the residual stream divided by
    sqrt(2 layers) as GPT-2's; embeddings start at 0.02. A narrow model learns faster from more: at width 192, 0.06."""
    tied_embeddings: bool = True
    """Whether the language-model head is the token embedding itself."""
    scaled_head: bool = False
    """Whether hidden vectors are divided by the root of `width` before the head, as in T5 where the head is tied."""
    start_token: int = Field(default=0, ge=0, le=10_000_000)
    """The id that a decoder behind an encoder is given before it has written anything: in T5 that of padding, in
    tokenizers trained here the mark between documents. Of no effect without an encoder."""

    @model_validator(mode="after")
    def _check_fit(self) -> Self:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_kv_heads {self.num_kv_heads} does not divide num_heads {self.num_heads}")
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(f"head_width {self.head_width} is odd, and rotary positions turn pairs")
        if self.positions == "sinusoidal" and self.embedding_size % 2:
            raise ValueError(f"embedding width {self.embedding_size} is odd, and sinusoidal positions fill pairs")
        if self.num_distinct > self.num_layers:
            raise ValueError(f"distinct_layers {self.distinct_layers} is more than num_layers {self.num_layers}")
        if self.bidirectional and self.encoder_layers:
            raise ValueError(f"masks {self.masks} of a decoder that follows an encoder look ahead; wanted causal ones")
        if self.sparse_layers != "none" and self.has_bias("feed_forward"):
            raise ValueError("experts have no biases; leave feed_forward out of bias_places")
        return self

    @property
    def embedding_size(self) -> int:
        """Numbers of an embedding."""
        return self.width if self.embedding_width == "width" else self.embedding_width

    @property
    def bounded(self) -> bool:
        """Whether a text can be too long: positions that are relative, or none, have no last one."""
        return self.positions not in {"relative", "none"}

    @property
    def num_distinct(self) -> int:
        """Blocks with weights of their own."""
        return self.num_layers if self.distinct_layers == "all" else self.distinct_layers

    @property
    def bidirectional(self) -> bool:
        """Whether some layer may look ahead."""
        return not {"causal", "banded"}.issuperset(self.masks)

    @property
    def batch_competes(self) -> bool:
        """Whether an expert has places for so many tokens of a whole batch, so that its texts depend on each other."""
        experts = self.experts
        return self.sparse_layers != "none" and not experts.dropless and experts.capacity_over == "batch"

    @property
    def gated(self) -> bool:
        """Whether a feed-forward gates a third projection (Shazeer 2020, arXiv:2002.05202)."""
        return self.feed_forward in {"swiglu", "geglu", "geglu_tanh"}

    def mask_of(self, layer: int) -> Mask:
        """Return the mask of a layer."""
        return self.masks[layer % len(self.masks)]

    def is_sparse(self, layer: int) -> bool:
        """Return whether a layer has experts."""
        return self.sparse_layers == "all" or (self.sparse_layers == "every_second" and layer % 2 == 1)

    def has_bias(self, projection: Projection) -> bool:
        """Return whether these projections add a bias."""
        return self.bias and projection in self.bias_places

    def encoder(self) -> ModelConfig:
        """Return the shape of the encoder, of a model that has one."""
        changes = {"num_layers": self.encoder_layers, "encoder_layers": 0, "masks": ("full",)}
        return ModelConfig.model_validate({**self.model_dump(), **changes})

    def with_vocabulary(self, vocab_size: int) -> ModelConfig:
        """Return the same shape for a tokenizer of `vocab_size` ids."""
        return ModelConfig.model_validate({**self.model_dump(), "vocab_size": vocab_size})
