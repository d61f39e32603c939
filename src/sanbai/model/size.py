"""Parameters and floating-point operations of a shape, in closed form: nothing is built, a trillion costs as a million.

Counted are matrix products, a multiplication and an addition as two operations: with the weights, and of queries, keys
and values with each other. Scores are counted whole also where a mask hides half (the convention of PaLM, Chowdhery et
al. 2022, arXiv:2204.02311, appendix B, and of published utilisations). The backward pass costs twice the forward pass.

Units: operations of one forward pass over one sequence.
"""

from __future__ import annotations

from dataclasses import dataclass

from sanbai.model.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What sizes depend on, and no more."""

    vocab_size: int
    num_layers: int
    """Of the decoder where there is an encoder too."""
    width: int
    embedding_width: int
    """Of one token's vector."""
    num_heads: int
    heads_width: int
    """Width of all query heads together."""
    kv_heads_width: int
    """Width of all key heads together, and of all value heads."""
    feed_forward_width: int
    gated: bool = False
    """Three projections a feed-forward, not two."""
    encoder_layers: int = 0
    num_experts: int = 1
    """1: no router."""
    top_k: int = 1
    expert_period: int = 1
    """Every so manyth layer has experts."""
    num_shared: int = 1
    """Layers that share one set of weights."""
    num_vectors: int = 0
    """Embedded positions, token types and tasks."""
    tied: bool = True
    bias: bool = False
    norm_vectors: int = 1
    """Vectors a norm has: 1 a weight, 2 a bias too, 0 none."""


@dataclass(frozen=True)
class Parameters:
    """How many numbers a model is made of."""

    embeddings: int
    """Tokens, positions, and the head where it is not tied."""
    dense: int
    """What every token uses, without the embeddings."""
    experts: int
    """All experts."""
    active_experts: int
    """The experts that one token uses."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.embeddings + self.dense + self.experts

    @property
    def active(self) -> int:
        """Those that one token uses, embeddings included."""
        return self.embeddings + self.dense + self.active_experts


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of one forward pass over one sequence."""

    layers: int
    """Attention's projections and the feed-forwards that are used. It is this number that papers print: T5-Base's 124
    billion a sequence (Fedus et al. 2021, arXiv:2101.03961, table 9) agree in all three digits."""
    scores: int
    """Queries with keys, and weights with values."""
    router: int
    head: int
    """From hidden vectors to logits."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.layers + self.scores + self.router + self.head

    @property
    def training(self) -> int:
        """Of the forward and the backward pass."""
        return 3 * self.total


def shape_of(config: ModelConfig) -> Shape:
    """Return what of a model's configuration its size depends on."""
    return Shape(
        vocab_size=config.vocab_size,
        num_layers=config.num_layers,
        width=config.width,
        num_heads=config.num_heads,
        heads_width=config.num_heads * config.head_width,
        kv_heads_width=config.num_kv_heads * config.head_width,
        feed_forward_width=config.feed_forward_width,
        gated=config.gated,
        encoder_layers=config.encoder_layers,
        num_experts=1 if config.sparse_layers == "none" else config.experts.num_experts,
        top_k=config.experts.top_k,
        expert_period=2 if config.sparse_layers == "every_second" else 1,
        num_shared=config.num_layers // config.num_distinct,
        embedding_width=config.embedding_size,
        num_vectors=(config.max_positions if config.positions == "learned" else 0)
        + config.num_token_types
        + config.num_task_types,
        tied=config.tied_embeddings,
        bias=config.bias,
        norm_vectors={"rms": 1, "layer": 2, "none": 0}[config.norm],
    )


def count_parameters(shape: Shape) -> Parameters:
    """Return the parameters of the trunk and the language-model head.

    Left out as below a thousandth: relative position biases, norms of queries and keys, norms of embeddings.
    """
    D, E = shape.width, shape.num_experts
    embeddings = (shape.vocab_size + shape.num_vectors) * shape.embedding_width
    embeddings += shape.embedding_width * D if shape.embedding_width != D else 0
    embeddings += 0 if shape.tied else shape.vocab_size * D
    attention = _attention(shape) + (2 * shape.heads_width + 2 * shape.kv_heads_width if shape.bias else 0)
    feed_forward = _feed_forward(shape)
    if shape.bias:
        attention += D - shape.heads_width
        feed_forward += (2 if shape.gated else 1) * shape.feed_forward_width + D
    norms = shape.norm_vectors * D
    dense = experts = active_experts = 0
    for layers, attentions in ((shape.encoder_layers, 1), (shape.num_layers, 2 if shape.encoder_layers else 1)):
        distinct = -(-layers // shape.num_shared)
        sparse = distinct // shape.expert_period if E > 1 else 0
        dense += distinct * (attentions * attention + (attentions + 1) * norms)
        dense += (distinct - sparse) * feed_forward + sparse * D * E + (norms if layers else 0)
        experts += sparse * E * feed_forward
        active_experts += sparse * shape.top_k * feed_forward
    return Parameters(embeddings, dense, experts, active_experts)


def count_operations(shape: Shape, length: int, *, source_length: int = 0) -> Operations:
    """Return the operations of one forward pass over a sequence.

    Args:
        shape: of the model.
        length: tokens that the decoder reads; of a model without a decoder, all.
        source_length: tokens that the encoder reads, where there is one.
    """
    layers = scores = router = 0
    parts = [(shape.num_layers, length, 0)]
    if shape.encoder_layers:
        parts = [(shape.encoder_layers, source_length, 0), (shape.num_layers, length, source_length)]
    for num_layers, tokens, memory in parts:
        sparse = num_layers // shape.expert_period if shape.num_experts > 1 else 0
        layers += num_layers * tokens * _attention(shape)
        layers += tokens * (num_layers - sparse + sparse * shape.top_k) * _feed_forward(shape)
        scores += num_layers * 2 * tokens * (tokens + memory) * shape.heads_width
        router += sparse * tokens * shape.width * shape.num_experts
        if memory:  # queries and outputs of the decoder's tokens, keys and values of the encoder's
            layers += num_layers * 2 * shape.width * (tokens * shape.heads_width + memory * shape.kv_heads_width)
    head = length * shape.embedding_width * shape.vocab_size
    return Operations(2 * layers, 2 * scores, 2 * router, 2 * head)


def _attention(shape: Shape) -> int:
    """Return the numbers in the four projections' matrices."""
    return 2 * shape.width * (shape.heads_width + shape.kv_heads_width)


def _feed_forward(shape: Shape) -> int:
    """Return the numbers in one feed-forward's matrices."""
    return (3 if shape.gated else 2) * shape.width * shape.feed_forward_width
