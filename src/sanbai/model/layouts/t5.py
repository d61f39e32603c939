"""T5 1.0 and 1.1, and mT5: an encoder and a decoder with relative positions.

1.0 has plain feed-forwards and a tied, scaled head; 1.1 gates them and unties the head; mT5 is 1.1 for many languages.
Newer transformers say `tie_word_embeddings` of all of them and mean the scale by `scale_decoder_outputs`; whether the
head is tied is then for the file to say (`hugging_face.py`).
"""

from __future__ import annotations

from typing import Any

from sanbai.model.config import ModelConfig
from sanbai.model.encoder_decoder import EncoderDecoder
from sanbai.model.layouts.layout import Head, Layout, Names, Settings, choose, require, under, word_for

_PLAIN = {"relu": "relu", "gelu": "gelu", "gelu_new": "gelu_tanh", "relu2": "squared_relu"}
_GATED = {"gated-gelu": "geglu_tanh", "gated-silu": "swiglu"}

_SELF: Names = {
    "attention_norm": "layer.0.layer_norm",
    "attention.qkv": tuple(f"layer.0.SelfAttention.{name}" for name in "qkv"),
    "attention.out": "layer.0.SelfAttention.o",
}
_CROSS: Names = {
    "cross_norm": "layer.1.layer_norm",
    "cross.query": "layer.1.EncDecAttention.q",
    "cross.key_value": ("layer.1.EncDecAttention.k", "layer.1.EncDecAttention.v"),
    "cross.out": "layer.1.EncDecAttention.o",
}
_STACK: Names = {
    "relative_bias.table": "block.0.layer.0.SelfAttention.relative_attention_bias",
    "norm": "final_layer_norm",
}


def _feed_forward(place: int, *, gated: bool) -> Names:
    inside = {"gate": "wi_0", "up": "wi_1", "down": "wo"} if gated else {"up": "wi", "down": "wo"}
    norm = {"feed_forward_norm": f"layer.{place}.layer_norm"}
    return {**norm, **under("feed_forward.", f"layer.{place}.DenseReluDense.", inside)}


def _names(*, gated: bool) -> Names:
    reader = {**_SELF, **_feed_forward(1, gated=gated)}
    writer = {**_SELF, **_CROSS, **_feed_forward(2, gated=gated)}
    return {
        "decoder.trunk.token_embedding": "shared",
        "decoder.head": "lm_head",
        **under("encoder.", "encoder.", {**_STACK, **under("blocks.*.", "block.*.", reader)}),
        **under("decoder.trunk.", "decoder.", {**_STACK, **under("blocks.*.", "block.*.", writer)}),
    }


def read_stacks(settings: Settings) -> dict[str, Any]:
    """Return our fields of what the whole family shares; no feed-forward.

    Raises:
        ModelError: a setting that we do not have.
    """
    require(settings, {"is_encoder_decoder": True})
    heads, tied = settings.get("num_heads", 8), settings.get("tie_word_embeddings", True)
    return {
        "vocab_size": settings.get("vocab_size", 32_128),
        "num_layers": settings.get("num_decoder_layers") or settings.get("num_layers", 6),
        "encoder_layers": settings.get("num_layers", 6),
        "width": settings.get("d_model", 512),
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_width": settings.get("d_kv", 64),
        "scaled_attention": False,
        "feed_forward_width": settings.get("d_ff", 2048),
        "norm": "rms",
        "norm_epsilon": settings.get("layer_norm_epsilon", 1e-6),
        "positions": "relative",
        "relative_buckets": settings.get("relative_attention_num_buckets", 32),
        "relative_distance": settings.get("relative_attention_max_distance", 128),
        "tied_embeddings": tied,
        "scaled_head": settings.get("scale_decoder_outputs", tied),
    }


def write_stacks(config: ModelConfig) -> dict[str, Any]:
    """Return the settings that the whole family shares."""
    return {
        "d_model": config.width,
        "d_kv": config.head_width,
        "d_ff": config.feed_forward_width,
        "num_layers": config.encoder_layers,
        "num_decoder_layers": config.num_layers,
        "num_heads": config.num_heads,
        "relative_attention_num_buckets": config.relative_buckets,
        "relative_attention_max_distance": config.relative_distance,
        "layer_norm_epsilon": config.norm_epsilon,
        "scale_decoder_outputs": config.scaled_head,
        "dropout_rate": 0.0,
        "is_encoder_decoder": True,
        "decoder_start_token_id": 0,
    }


def _read_plain(settings: Settings) -> dict[str, Any]:
    return {**read_stacks(settings), "feed_forward": choose(settings, "feed_forward_proj", _PLAIN, "relu")}


def _write_plain(config: ModelConfig) -> dict[str, Any]:
    return {**write_stacks(config), "feed_forward_proj": word_for(_PLAIN, config.feed_forward)}


def _read_gated(settings: Settings) -> dict[str, Any]:
    return {**read_stacks(settings), "feed_forward": choose(settings, "feed_forward_proj", _GATED, "relu")}


def _write_gated(config: ModelConfig) -> dict[str, Any]:
    return {**write_stacks(config), "feed_forward_proj": word_for(_GATED, config.feed_forward)}


def _read_mt5(settings: Settings) -> dict[str, Any]:
    return {**_read_gated({"feed_forward_proj": "gated-gelu", **settings}), "scaled_head": False}


#: Other names of the embedding that both halves share, and of the head where it is tied.
COPIES = dict.fromkeys(
    ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"), "shared.weight"
)
#: Old files hold a bias that no layer has.
_UNUSED = r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"


def _layout(model_type: str, name: str, *, gated: bool, read: Any, write: Any) -> Layout:
    heads = (Head(f"{name}ForConditionalGeneration", EncoderDecoder, _names(gated=gated)),)
    return Layout(model_type, heads, read, write, prefix="", copies=COPIES, ignored=_UNUSED)


T5 = _layout("t5", "T5", gated=False, read=_read_plain, write=_write_plain)
T5_GATED = _layout("t5", "T5", gated=True, read=_read_gated, write=_write_gated)
MT5 = _layout("mt5", "MT5", gated=True, read=_read_mt5, write=_write_gated)
