"""T5 1.0 and 1.1, mT5, and Switch: an encoder and a decoder with relative positions.

1.0 has plain feed-forwards and a tied, scaled head; 1.1 gates them and unties the head; mT5 is 1.1 for many languages.
Newer transformers say `tie_word_embeddings` of all of them and mean the scale by `scale_decoder_outputs`; whether the
head is tied is then for the file to say (`hugging_face.py`). Switch is 1.0 with experts in some layers. Its capacity
in transformers is a number of tokens a text and expert, not a share of the batch; read, it becomes none in evaluation,
and written it is the longest context: nothing is dropped on either side.
"""

from __future__ import annotations

from typing import Any

from sanbai.foundation.errors import ModelError
from sanbai.model.config import ModelConfig
from sanbai.model.encoder_decoder import EncoderDecoder
from sanbai.model.layouts.layout import Head, Layout, Names, Settings, choose, require, under, word_for

_PLAIN = {"relu": "relu", "gelu": "gelu", "gelu_new": "gelu_tanh", "relu2": "squared_relu"}
_GATED = {"gated-gelu": "geglu_tanh", "gated-silu": "swiglu"}
_START_KEYS = ("decoder_start_token_id", "pad_token_id")
"""What says which token a decoder starts from; the first that is set."""

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


def _switch_feed_forward(place: int) -> Names:
    return {
        "feed_forward_norm": f"layer.{place}.layer_norm",
        **under("feed_forward.", f"layer.{place}.mlp.", {"up": "wi", "down": "wo"}),
        "experts.router": f"layer.{place}.mlp.router.classifier.weight",
        "experts.up": f"layer.{place}.mlp.experts.expert_#.wi.weight",
        "experts.down": f"layer.{place}.mlp.experts.expert_#.wo.weight",
    }


def _feed_forward(place: int, *, gated: bool) -> Names:
    inside = {"gate": "wi_0", "up": "wi_1", "down": "wo"} if gated else {"up": "wi", "down": "wo"}
    norm = {"feed_forward_norm": f"layer.{place}.layer_norm"}
    return {**norm, **under("feed_forward.", f"layer.{place}.DenseReluDense.", inside)}


def _names(in_reader: Names, in_writer: Names) -> Names:
    reader, writer = {**_SELF, **in_reader}, {**_SELF, **_CROSS, **in_writer}
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
        "start_token": next(id_ for id_ in (*map(settings.get, _START_KEYS), 0) if id_ is not None),
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
        "decoder_start_token_id": config.start_token,
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


def _read_switch(settings: Settings) -> dict[str, Any]:
    require(settings, {"router_bias": False, "router_ignore_padding_tokens": False})
    depths = {"width": 768, "d_ff": 2048, "num_heads": 12, "num_layers": 12, "num_decoder_layers": 12, "d_model": 768}
    fields = read_stacks({**depths, **settings})
    fields["feed_forward"] = choose(settings, "dense_act_fn", _PLAIN, "relu")
    fields["scaled_head"] = fields["tied_embeddings"]
    num_experts = settings.get("num_experts", 8)
    fields["experts"] = {
        "num_experts": num_experts,
        "evaluation_capacity_factor": num_experts,
        "capacity_over": "row",
        "balance_coef": settings.get("router_aux_loss_coef", 0.001),
        "z_coef": settings.get("router_z_loss_coef", 0.001),
        "jitter": settings.get("router_jitter_noise", 0.01),
        "router_precision": settings.get("router_dtype", "float32"),
    }
    fields["sparse_layers"] = _which_are_sparse(
        (fields["encoder_layers"], settings.get("num_sparse_encoder_layers", 3)),
        (fields["num_layers"], settings.get("num_sparse_decoder_layers", 3)),
    )
    return fields


def _write_switch(config: ModelConfig) -> dict[str, Any]:
    stacks = write_stacks(config)
    del stacks["scale_decoder_outputs"]
    share = {"none": 0.0, "every_second": 0.5, "all": 1.0}[config.sparse_layers]
    return {
        **stacks,
        "dense_act_fn": word_for(_PLAIN, config.feed_forward),
        "num_experts": config.experts.num_experts,
        "expert_capacity": config.max_positions,
        "num_sparse_encoder_layers": int(config.encoder_layers * share),
        "num_sparse_decoder_layers": int(config.num_layers * share),
        "router_aux_loss_coef": config.experts.balance_coef,
        "router_z_loss_coef": config.experts.z_coef,
        "router_jitter_noise": config.experts.jitter,
        "router_dtype": config.experts.router_precision,
    }


def _which_are_sparse(*stacks: tuple[int, int]) -> str:
    """Return our word for the layers that transformers makes sparse, given layers and sparse layers of each stack."""
    words = set()
    for num_layers, num_sparse in stacks:
        step = num_layers // num_sparse if num_sparse else num_layers
        sparse = [layer for layer in range(num_layers) if layer % step == 1 or step == 1]
        known = {"none": [], "every_second": list(range(1, num_layers, 2)), "all": list(range(num_layers))}
        words |= {next((word for word, layers in known.items() if layers == sparse and num_sparse), "none")}
        if sparse not in known.values():
            raise ModelError(f"sparse layers {sparse} of {num_layers}; only every second one or all are supported")
    if len(words) > 1:
        raise ModelError(
            f"{' and '.join(sorted(words))} of the layers are sparse, one in each half; only alike is supported"
        )
    return words.pop()


#: Other names of the embedding that both halves share, and of the head where it is tied.
COPIES = dict.fromkeys(
    ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"), "shared.weight"
)
#: Old files hold a bias that no layer has.
_UNUSED = r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"


def _layout(model_type: str, name: str, names: Names, *, read: Any, write: Any) -> Layout:
    heads = (Head(f"{name}ForConditionalGeneration", EncoderDecoder, names),)
    return Layout(model_type, heads, read, write, prefix="", copies=COPIES, ignored=_UNUSED)


_PLAIN_NAMES = _names(_feed_forward(1, gated=False), _feed_forward(2, gated=False))
_GATED_NAMES = _names(_feed_forward(1, gated=True), _feed_forward(2, gated=True))
_SWITCH_NAMES = _names(_switch_feed_forward(1), _switch_feed_forward(2))

T5 = _layout("t5", "T5", _PLAIN_NAMES, read=_read_plain, write=_write_plain)
T5_GATED = _layout("t5", "T5", _GATED_NAMES, read=_read_gated, write=_write_gated)
MT5 = _layout("mt5", "MT5", _GATED_NAMES, read=_read_mt5, write=_write_gated)
SWITCH = _layout("switch_transformers", "SwitchTransformers", _SWITCH_NAMES, read=_read_switch, write=_write_switch)
