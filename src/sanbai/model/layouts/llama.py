"""Llama 2 and 3, Qwen2 and 3, Mixtral, Qwen3 MoE: one block, told apart by biases, norms of queries and keys, experts.

Qwen3 MoE is the stock decoder with Switch's choices: one expert a token, its gate not normalised, every second layer.
"""

from __future__ import annotations

from typing import Any

from sanbai.foundation.errors import ModelError
from sanbai.model.config import ModelConfig, RopeScaling
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.model.layouts.layout import Head, Layout, Names, Settings, biases, choose, require, under, word_for
from sanbai.model.reading_heads import Classifier
from sanbai.model.transformer import Transformer

_ACTIVATIONS = {"silu": "swiglu"}

_TRUNK: Names = {
    "token_embedding": "embed_tokens",
    "norm": "norm",
    "blocks.*.attention_norm": "layers.*.input_layernorm",
    "blocks.*.attention.qkv": tuple(f"layers.*.self_attn.{name}_proj" for name in "qkv"),
    "blocks.*.attention.query_norm": "layers.*.self_attn.q_norm",
    "blocks.*.attention.key_norm": "layers.*.self_attn.k_norm",
    "blocks.*.attention.out": "layers.*.self_attn.o_proj",
    "blocks.*.feed_forward_norm": "layers.*.post_attention_layernorm",
    "blocks.*.feed_forward.gate": "layers.*.mlp.gate_proj",
    "blocks.*.feed_forward.up": "layers.*.mlp.up_proj",
    "blocks.*.feed_forward.down": "layers.*.mlp.down_proj",
}
_MIXTRAL_TRUNK: Names = {
    **_TRUNK,
    "blocks.*.experts.router": "layers.*.block_sparse_moe.gate.weight",
    "blocks.*.experts.gate": "layers.*.block_sparse_moe.experts.#.w1.weight",
    "blocks.*.experts.up": "layers.*.block_sparse_moe.experts.#.w3.weight",
    "blocks.*.experts.down": "layers.*.block_sparse_moe.experts.#.w2.weight",
}
_QWEN3_MOE_TRUNK: Names = {
    **_TRUNK,
    "blocks.*.experts.router": "layers.*.mlp.gate.weight",
    "blocks.*.experts.gate": "layers.*.mlp.experts.#.gate_proj.weight",
    "blocks.*.experts.up": "layers.*.mlp.experts.#.up_proj.weight",
    "blocks.*.experts.down": "layers.*.mlp.experts.#.down_proj.weight",
}
_SPARSE_STEPS = {1: "all", 2: "every_second"}


def _heads(name: str, trunk: Names = _TRUNK) -> tuple[Head, ...]:
    whole = under("trunk.", "model.", trunk)
    return (
        Head(f"{name}ForCausalLM", LanguageModel, {**whole, "head": "lm_head"}),
        Head(f"{name}ForSequenceClassification", ScalarModel, {**whole, "head.weight": "score.weight"}),
        Head(f"{name}ForSequenceClassification", Classifier, {**whole, "head": "score"}),
        Head(f"{name}Model", Transformer, trunk),
    )


def read_block(settings: Settings) -> dict[str, Any]:
    """Return our fields of what the whole family shares; no biases.

    Raises:
        ModelError: a setting that we do not have.
    """
    if settings.get("use_sliding_window") or set(settings.get("layer_types") or ["full_attention"]) != {
        "full_attention"
    }:
        raise ModelError("layers with a sliding window are not supported")
    heads, width = settings.get("num_attention_heads"), settings.get("hidden_size")
    head_width = settings.get("head_dim")
    if head_width is None and isinstance(heads, int) and isinstance(width, int):
        head_width = width // max(heads, 1)
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    max_positions = settings.get("max_position_embeddings", 2048)
    return {
        "vocab_size": settings.get("vocab_size"),
        "num_layers": settings.get("num_hidden_layers"),
        "width": width,
        "num_heads": heads,
        "num_kv_heads": settings.get("num_key_value_heads") or heads,
        "head_width": head_width,
        "feed_forward": choose(settings, "hidden_act", _ACTIVATIONS, "silu"),
        "feed_forward_width": settings.get("intermediate_size"),
        "norm": "rms",
        "norm_epsilon": settings.get("rms_norm_eps", 1e-6),
        "positions": "rotary",
        "max_positions": max_positions,
        "rope_theta": rope.get("rope_theta", settings.get("rope_theta", 10_000.0)),
        "rope_scaling": _read_scaling(rope, max_positions),
        "tied_embeddings": settings.get("tie_word_embeddings", False),
    }


def write_block(config: ModelConfig) -> dict[str, Any]:
    """Return the settings that the whole family shares."""
    return {
        "hidden_size": config.width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_width,
        "intermediate_size": config.feed_forward_width,
        "hidden_act": word_for(_ACTIVATIONS, config.feed_forward),
        "rms_norm_eps": config.norm_epsilon,
        "max_position_embeddings": config.max_positions,
        "rope_theta": config.rope_theta,
        "rope_parameters": {**_write_scaling(config.rope_scaling), "rope_theta": config.rope_theta},
        "initializer_range": 0.02,
    }


def _read_scaling(rope: Settings, max_positions: int) -> dict[str, Any]:
    kind = rope.get("rope_type", rope.get("type", "default"))
    needed = {
        "default": (),
        "linear": ("factor",),
        "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
        "yarn": ("factor",),
    }
    if kind not in needed:
        raise ModelError(f"rope_type is {kind!r}, only {', '.join(needed)} are supported")
    missing = [key for key in needed[kind] if key not in rope]
    if missing:
        raise ModelError(f"rope_type is {kind!r}, but its {missing[0]} is not given")
    require(rope, {"partial_rotary_factor": 1.0})
    if kind == "default":
        return {}
    if kind == "linear":
        return {"kind": "linear", "factor": rope["factor"]}
    scaling = {
        "kind": kind,
        "factor": rope["factor"],
        "original_positions": rope.get("original_max_position_embeddings", max_positions),
    }
    if kind == "llama3":
        return {**scaling, "slow_turns": rope["low_freq_factor"], "fast_turns": rope["high_freq_factor"]}
    require(rope, {"attention_factor": None, "mscale": None, "mscale_all_dim": None, "truncate": True})
    return {**scaling, "slow_turns": rope.get("beta_slow", 1.0), "fast_turns": rope.get("beta_fast", 32.0)}


def _write_scaling(scaling: RopeScaling) -> dict[str, Any]:
    if scaling.kind == "none":
        return {"rope_type": "default"}
    if scaling.kind == "linear":
        return {"rope_type": "linear", "factor": scaling.factor}
    slow, fast = ("low_freq_factor", "high_freq_factor") if scaling.kind == "llama3" else ("beta_slow", "beta_fast")
    return {
        "rope_type": scaling.kind,
        "factor": scaling.factor,
        "original_max_position_embeddings": scaling.original_positions,
        slow: scaling.slow_turns,
        fast: scaling.fast_turns,
    }


def _read_llama(settings: Settings) -> dict[str, Any]:
    require(settings, {"pretraining_tp": 1})
    attention, feed_forward = settings.get("attention_bias", False), settings.get("mlp_bias", False)
    return {**read_block(settings), **biases(qkv=attention, out=attention, feed_forward=feed_forward)}


def _write_llama(config: ModelConfig) -> dict[str, Any]:
    return {
        **write_block(config),
        "attention_bias": config.has_bias("qkv"),
        "mlp_bias": config.has_bias("feed_forward"),
    }


def _read_qwen2(settings: Settings) -> dict[str, Any]:
    return {**read_block(settings), **biases(qkv=True, out=False, feed_forward=False)}


def _read_qwen3(settings: Settings) -> dict[str, Any]:
    attention = settings.get("attention_bias", False)
    return {
        **read_block({"head_dim": 128, **settings}),
        **biases(qkv=attention, out=attention, feed_forward=False),
        "query_key_norm": True,
    }


def _write_qwen3(config: ModelConfig) -> dict[str, Any]:
    return {**write_block(config), "attention_bias": config.has_bias("qkv")}


def _read_mixtral(settings: Settings) -> dict[str, Any]:
    require(settings, {"sliding_window": None})
    experts = {
        "num_experts": settings.get("num_local_experts", 8),
        "top_k": settings.get("num_experts_per_tok", 2),
        "normalised_gates": True,
        "dropless": True,
        "balance_coef": settings.get("router_aux_loss_coef", 0.001),
        "jitter": settings.get("router_jitter_noise", 0.0),
    }
    rope = {"rope_theta": 1e6, **settings}
    return {**read_block(rope), "bias": False, "sparse_layers": "all", "experts": experts}


def _write_mixtral(config: ModelConfig) -> dict[str, Any]:
    return {
        **write_block(config),
        "num_local_experts": config.experts.num_experts,
        "num_experts_per_tok": config.experts.top_k,
        "router_aux_loss_coef": config.experts.balance_coef,
        "router_jitter_noise": config.experts.jitter,
        "sliding_window": None,
    }


def _read_qwen3_moe(settings: Settings) -> dict[str, Any]:
    fields = _read_qwen3(settings)
    sparse_layers = choose(settings, "decoder_sparse_step", _SPARSE_STEPS, 1)
    inner_width = settings.get("moe_intermediate_size")
    if sparse_layers != "all" and inner_width != fields["feed_forward_width"]:
        raise ModelError(
            f"moe_intermediate_size is {inner_width}, only intermediate_size, {fields['feed_forward_width']}, is "
            "supported where some layers are dense"
        )
    require(settings, {"mlp_only_layers": []})
    experts = {
        "num_experts": settings.get("num_experts", settings.get("num_local_experts", 128)),
        "top_k": settings.get("num_experts_per_tok", 8),
        "normalised_gates": settings.get("norm_topk_prob", False),
        "dropless": True,
        "balance_coef": settings.get("router_aux_loss_coef", 0.001),
        "jitter": 0.0,
        "router_precision": settings.get("router_dtype", "float32"),
    }
    return {**fields, "feed_forward_width": inner_width, "sparse_layers": sparse_layers, "experts": experts}


def _write_qwen3_moe(config: ModelConfig) -> dict[str, Any]:
    return {
        **_write_qwen3(config),
        "moe_intermediate_size": config.feed_forward_width,
        "decoder_sparse_step": word_for(_SPARSE_STEPS, config.sparse_layers),
        "mlp_only_layers": [],
        "num_experts": config.experts.num_experts,
        "num_experts_per_tok": config.experts.top_k,
        "norm_topk_prob": config.experts.normalised_gates,
        "router_aux_loss_coef": config.experts.balance_coef,
        "router_dtype": config.experts.router_precision,  # no stock key: other programs take that of the weights
    }


_COPIES = {"lm_head.weight": "model.embed_tokens.weight"}
_TABLES = r".*rotary_emb\.inv_freq"

LLAMA = Layout("llama", _heads("Llama"), _read_llama, _write_llama, "model.", copies=_COPIES, ignored=_TABLES)
QWEN2 = Layout("qwen2", _heads("Qwen2"), _read_qwen2, write_block, "model.", copies=_COPIES, ignored=_TABLES)
QWEN3 = Layout("qwen3", _heads("Qwen3"), _read_qwen3, _write_qwen3, "model.", copies=_COPIES, ignored=_TABLES)
MIXTRAL = Layout(
    model_type="mixtral",
    heads=_heads("Mixtral", _MIXTRAL_TRUNK),
    read=_read_mixtral,
    write=_write_mixtral,
    prefix="model.",
    copies=_COPIES,
    ignored=_TABLES,
)
QWEN3_MOE = Layout(
    model_type="qwen3_moe",
    heads=_heads("Qwen3Moe", _QWEN3_MOE_TRUNK),
    read=_read_qwen3_moe,
    write=_write_qwen3_moe,
    prefix="model.",
    copies=_COPIES,
    ignored=_TABLES,
)
