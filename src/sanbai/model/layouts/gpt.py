"""GPT-1, GPT-2 and GPT-Neo; the last has GPT-3's alternation of masks."""

from __future__ import annotations

from typing import Any

from sanbai.foundation.errors import ModelError
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.model.layouts.layout import (
    ACTIVATIONS,
    Head,
    Layout,
    Names,
    Settings,
    biases,
    choose,
    require,
    under,
    word_for,
)
from sanbai.model.reading_heads import Classifier, SpanModel
from sanbai.model.transformer import Transformer

_GPT1_ACTIVATIONS = {"gelu": "gelu_tanh", "gelu_new": "gelu_tanh", "relu": "relu"}
_CONV1D = ("attention.qkv", "attention.out", "feed_forward.up", "feed_forward.down")

_BLOCK: Names = {
    "blocks.*.attention_norm": "h.*.ln_1",
    "blocks.*.attention.qkv": "h.*.attn.c_attn",
    "blocks.*.attention.out": "h.*.attn.c_proj",
    "blocks.*.feed_forward_norm": "h.*.ln_2",
    "blocks.*.feed_forward.up": "h.*.mlp.c_fc",
    "blocks.*.feed_forward.down": "h.*.mlp.c_proj",
}
_GPT1_TRUNK: Names = {
    "token_embedding": "tokens_embed",
    "position_embedding": "positions_embed",
    **_BLOCK,
}
_GPT2_TRUNK: Names = {"token_embedding": "wte", "position_embedding": "wpe", "norm": "ln_f", **_BLOCK}
_NEO_TRUNK: Names = {
    **_GPT2_TRUNK,
    "blocks.*.attention.qkv": tuple(f"h.*.attn.attention.{name}_proj" for name in "qkv"),
    "blocks.*.attention.out": "h.*.attn.attention.out_proj",
}


def _heads(name: str, trunk: Names, *, language: str = "LMHeadModel", spans: bool = True) -> tuple[Head, ...]:
    whole = under("trunk.", "transformer.", trunk)
    heads = [
        Head(f"{name}{language}", LanguageModel, {**whole, "head": "lm_head"}),
        Head(f"{name}ForSequenceClassification", ScalarModel, {**whole, "head.weight": "score.weight"}),
        Head(f"{name}ForSequenceClassification", Classifier, {**whole, "head": "score"}),
        Head(f"{name}Model", Transformer, trunk),
    ]
    if spans:
        heads.append(Head(f"{name}ForQuestionAnswering", SpanModel, {**whole, "head": "qa_outputs"}))
    return tuple(heads)


def _read_common(settings: Settings) -> dict[str, Any]:
    width, heads = settings.get("n_embd", 768), settings.get("n_head", 12)
    return {
        "vocab_size": settings.get("vocab_size", 50_257),
        "num_layers": settings.get("n_layer", 12),
        "width": width,
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_width": width // max(heads, 1),
        "feed_forward_width": settings.get("n_inner") or 4 * width,
        "norm": "layer",
        "norm_epsilon": settings.get("layer_norm_epsilon", 1e-5),
        "positions": "learned",
        "bias": True,
        "tied_embeddings": settings.get("tie_word_embeddings", True),
    }


def _write_common(config: ModelConfig) -> dict[str, Any]:
    return {
        "n_embd": config.width,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_positions": config.max_positions,
        "layer_norm_epsilon": config.norm_epsilon,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }


def _read_gpt1(settings: Settings) -> dict[str, Any]:
    if "n_inner" in settings:
        require(settings, {"n_inner": 4 * settings.get("n_embd", 768)})
    return {
        **_read_common(settings),
        "vocab_size": settings.get("vocab_size", 40_478),
        "max_positions": settings.get("n_positions", 512),
        "feed_forward": choose(settings, "afn", _GPT1_ACTIVATIONS, "gelu"),
        "norm_place": "after",
    }


def _write_gpt1(config: ModelConfig) -> dict[str, Any]:
    return {**_write_common(config), "afn": word_for(_GPT1_ACTIVATIONS, config.feed_forward)}


def _read_gpt2(settings: Settings) -> dict[str, Any]:
    wanted = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}
    require(settings, wanted)
    return {
        **_read_common(settings),
        "max_positions": settings.get("n_positions", 1024),
        "feed_forward": choose(settings, "activation_function", ACTIVATIONS, "gelu_new"),
    }


def _write_gpt2(config: ModelConfig) -> dict[str, Any]:
    return {
        **_write_common(config),
        "n_inner": config.feed_forward_width,
        "activation_function": word_for(ACTIVATIONS, config.feed_forward),
    }


def _read_neo(settings: Settings) -> dict[str, Any]:
    width, heads = settings.get("hidden_size", 2048), settings.get("num_heads", 16)
    kinds = {"global": "causal", "local": "banded"}
    layers = [
        kind for some, times in settings.get("attention_types", [[["global", "local"], 12]]) for kind in some * times
    ]
    if not kinds.keys() >= set(layers):
        raise ModelError(f"attention_types has {sorted(set(layers) - kinds.keys())}, only {list(kinds)} are supported")
    return {
        "vocab_size": settings.get("vocab_size", 50_257),
        "num_layers": settings.get("num_layers", 24),
        "width": width,
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_width": width // max(heads, 1),
        "scaled_attention": False,
        "masks": tuple(kinds[kind] for kind in layers),
        "band_width": settings.get("window_size", 256),
        "feed_forward": choose(settings, "activation_function", ACTIVATIONS, "gelu_new"),
        "feed_forward_width": settings.get("intermediate_size") or 4 * width,
        "norm": "layer",
        "norm_epsilon": settings.get("layer_norm_epsilon", 1e-5),
        "positions": "learned",
        "max_positions": settings.get("max_position_embeddings", 2048),
        **biases(qkv=False, out=True, feed_forward=True),
        "tied_embeddings": settings.get("tie_word_embeddings", True),
    }


def _write_neo(config: ModelConfig) -> dict[str, Any]:
    words = {"causal": "global", "banded": "local"}
    layers = [words.get(config.mask_of(layer), "unknown") for layer in range(config.num_layers)]
    return {
        "hidden_size": config.width,
        "num_layers": config.num_layers,
        "num_heads": config.num_heads,
        "attention_types": [[[kind], 1] for kind in layers],
        "window_size": config.band_width,
        "intermediate_size": config.feed_forward_width,
        "max_position_embeddings": config.max_positions,
        "activation_function": word_for(ACTIVATIONS, config.feed_forward),
        "layer_norm_epsilon": config.norm_epsilon,
        "resid_dropout": 0.0,
        "embed_dropout": 0.0,
        "attention_dropout": 0.0,
    }


#: Old files keep each layer's causal mask beside its weights.
_MASKS = r".*\.attn\.(attention\.)?(masked_)?bias"

GPT2 = Layout(
    model_type="gpt2",
    heads=_heads("GPT2", _GPT2_TRUNK),
    read=_read_gpt2,
    write=_write_gpt2,
    prefix="transformer.",
    transposed=_CONV1D,
    copies={"lm_head.weight": "transformer.wte.weight"},
    ignored=_MASKS,
)
GPT1 = Layout(
    model_type="openai-gpt",
    heads=_heads("OpenAIGPT", _GPT1_TRUNK, spans=False),
    read=_read_gpt1,
    write=_write_gpt1,
    prefix="transformer.",
    transposed=_CONV1D,
    copies={"lm_head.weight": "transformer.tokens_embed.weight"},
    ignored=_MASKS,
)
GPT_NEO = Layout(
    model_type="gpt_neo",
    heads=_heads("GPTNeo", _NEO_TRUNK, language="ForCausalLM"),
    read=_read_neo,
    write=_write_neo,
    prefix="transformer.",
    copies={"lm_head.weight": "transformer.wte.weight"},
    ignored=_MASKS,
)
