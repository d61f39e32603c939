"""Known shapes as data: the history of language models, row by row. Tests count their parameters on the meta device.

Where a paper's print and its model disagree, the model stands here:

- GPT-2 (Radford et al. 2019, table 2): 117M and 345M leave the embeddings out; the released files hold 124M and 355M.
- GPT-3 (Brown et al. 2020, arXiv:2005.14165, table 2.1): the width of 175B is 12288, not the often-copied 12888; 1.3B
  has 16 heads of 128, as 24 of them do not fit its width; 350M has 356M parameters. The paper does not say how wide the
  bands of its sparse layers are; 256 is GPT-Neo's.
- ALBERT (Lan et al. 2019, arXiv:1909.11942): xxlarge has 223M parameters, the paper prints 235M.
- T5 (Raffel et al. 2019, arXiv:1910.10683): large has 738M parameters, the paper prints 770M.
- Switch (Fedus et al. 2021, arXiv:2101.03961, table 9): XXL prints 64 experts, which give 201B; 128 give its 395B. Base
  and Large stand as released, without gates and so with a wider feed-forward.

Others: GPT-1 (Radford et al. 2018), Llama 2 and 3 (arXiv:2307.09288, arXiv:2407.21783), Qwen2 and 3 (arXiv:2407.10671,
arXiv:2505.09388), Mixtral (arXiv:2401.04088), BERT (arXiv:1810.04805), ERNIE 3.0 (arXiv:2107.02137), mT5
(arXiv:2010.11934).
"""

from __future__ import annotations

from typing import Any

from sanbai.model.config import ModelConfig, RopeScaling
from sanbai.model.experts import ExpertsConfig


def _gpt(num_layers: int, width: int, num_heads: int, **changes: Any) -> ModelConfig:
    fields: dict[str, Any] = {
        "vocab_size": 50_257,
        "num_layers": num_layers,
        "width": width,
        "num_heads": num_heads,
        "num_kv_heads": num_heads,
        "head_width": width // num_heads,
        "feed_forward": "gelu_tanh",
        "feed_forward_width": 4 * width,
        "norm": "layer",
        "norm_epsilon": 1e-5,
        "positions": "learned",
        "max_positions": 1024,
        "bias": True,
    }
    return ModelConfig.model_validate({**fields, **changes})


def _gpt3(num_layers: int, width: int, num_heads: int, head_width: int) -> ModelConfig:
    masks = ("causal", "banded")
    return _gpt(num_layers, width, num_heads, head_width=head_width, max_positions=2048, masks=masks, band_width=256)


def _llama(
    num_layers: int, width: int, num_heads: int, num_kv_heads: int, feed_forward_width: int, **changes: Any
) -> ModelConfig:
    fields: dict[str, Any] = {
        "vocab_size": 32_000,
        "num_layers": num_layers,
        "width": width,
        "num_heads": num_heads,
        "num_kv_heads": num_kv_heads,
        "head_width": width // num_heads,
        "feed_forward_width": feed_forward_width,
        "norm_epsilon": 1e-5,
        "max_positions": 4096,
        "tied_embeddings": False,
    }
    return ModelConfig.model_validate({**fields, **changes})


_LLAMA3: dict[str, Any] = {"vocab_size": 128_256, "max_positions": 8192, "rope_theta": 500_000.0}
_LLAMA31: dict[str, Any] = {**_LLAMA3, "max_positions": 131_072, "rope_scaling": RopeScaling(kind="llama3", factor=8.0)}
_QWEN2: dict[str, Any] = {
    "vocab_size": 151_936,
    "norm_epsilon": 1e-6,
    "max_positions": 32_768,
    "rope_theta": 1e6,
    "bias": True,
    "bias_places": ("qkv",),
}
_QWEN3: dict[str, Any] = {
    "vocab_size": 151_936,
    "norm_epsilon": 1e-6,
    "max_positions": 40_960,
    "rope_theta": 1e6,
    "query_key_norm": True,
    "head_width": 128,
}


def _bert(num_layers: int, width: int, num_heads: int, **changes: Any) -> ModelConfig:
    reader: dict[str, Any] = {
        "vocab_size": 30_522,
        "masks": ("full",),
        "feed_forward": "gelu",
        "norm_place": "after",
        "norm_epsilon": 1e-12,
        "embedding_norm": True,
        "max_positions": 512,
        "num_token_types": 2,
    }
    return _gpt(num_layers, width, num_heads, **{**reader, **changes})


def _albert(num_layers: int, width: int, num_heads: int) -> ModelConfig:
    shared: dict[str, Any] = {"distinct_layers": 1, "embedding_width": 128, "feed_forward": "gelu_tanh"}
    return _bert(num_layers, width, num_heads, vocab_size=30_000, **shared)


def _t5(num_layers: int, width: int, num_heads: int, feed_forward_width: int, **changes: Any) -> ModelConfig:
    fields: dict[str, Any] = {
        "vocab_size": 32_128,
        "num_layers": num_layers,
        "encoder_layers": num_layers,
        "width": width,
        "num_heads": num_heads,
        "num_kv_heads": num_heads,
        "head_width": 64,
        "scaled_attention": False,
        "feed_forward": "relu",
        "feed_forward_width": feed_forward_width,
        "norm_epsilon": 1e-6,
        "positions": "relative",
        "scaled_head": True,
    }
    return ModelConfig.model_validate({**fields, **changes})


_T5_1_1: dict[str, Any] = {"feed_forward": "geglu_tanh", "tied_embeddings": False, "scaled_head": False}
_MT5: dict[str, Any] = {**_T5_1_1, "vocab_size": 250_112}


def _switch(
    num_layers: int, width: int, num_heads: int, feed_forward_width: int, num_experts: int, **changes: Any
) -> ModelConfig:
    sparse = {"sparse_layers": "every_second", "experts": ExpertsConfig(num_experts=num_experts)}
    return _t5(num_layers, width, num_heads, feed_forward_width, **{**sparse, **changes})


_MIXTRAL: dict[str, Any] = {
    "max_positions": 32_768,
    "rope_theta": 1e6,
    "sparse_layers": "all",
    "experts": ExpertsConfig(top_k=2, normalised_gates=True, dropless=True, balance_coef=0.02, jitter=0.0),
}

PRESETS: dict[str, ModelConfig] = {
    "tiny": ModelConfig(),
    "small": ModelConfig(
        vocab_size=4096, num_layers=6, width=384, num_heads=6, num_kv_heads=6, head_width=64, feed_forward_width=1024
    ),
    "gpt1": _gpt(12, 768, 12, vocab_size=40_478, max_positions=512, norm_place="after"),
    "gpt2": _gpt(12, 768, 12),
    "gpt2-medium": _gpt(24, 1024, 16),
    "gpt2-large": _gpt(36, 1280, 20),
    "gpt2-xl": _gpt(48, 1600, 25),
    "gpt3-125m": _gpt3(12, 768, 12, 64),
    "gpt3-350m": _gpt3(24, 1024, 16, 64),
    "gpt3-760m": _gpt3(24, 1536, 16, 96),
    "gpt3-1.3b": _gpt3(24, 2048, 16, 128),
    "gpt3-2.7b": _gpt3(32, 2560, 32, 80),
    "gpt3-6.7b": _gpt3(32, 4096, 32, 128),
    "gpt3-13b": _gpt3(40, 5140, 40, 128),
    "gpt3-175b": _gpt3(96, 12_288, 96, 128),
    "llama-2-7b": _llama(32, 4096, 32, 32, 11_008),
    "llama-2-13b": _llama(40, 5120, 40, 40, 13_824),
    "llama-2-70b": _llama(80, 8192, 64, 8, 28_672),
    "llama-3-8b": _llama(32, 4096, 32, 8, 14_336, **_LLAMA3),
    "llama-3-70b": _llama(80, 8192, 64, 8, 28_672, **_LLAMA3),
    "llama-3.1-8b": _llama(32, 4096, 32, 8, 14_336, **_LLAMA31),
    "llama-3.1-405b": _llama(126, 16_384, 128, 8, 53_248, **_LLAMA31),
    "qwen2-0.5b": _llama(24, 896, 14, 2, 4864, **_QWEN2, tied_embeddings=True),
    "qwen2-1.5b": _llama(28, 1536, 12, 2, 8960, **_QWEN2, tied_embeddings=True),
    "qwen2-7b": _llama(28, 3584, 28, 4, 18_944, **{**_QWEN2, "vocab_size": 152_064}),
    "qwen3-0.6b": _llama(28, 1024, 16, 8, 3072, **_QWEN3, tied_embeddings=True),
    "qwen3-8b": _llama(36, 4096, 32, 8, 12_288, **_QWEN3),
    "mixtral-8x7b": _llama(32, 4096, 32, 8, 14_336, **_MIXTRAL),
    "bert-base": _bert(12, 768, 12),
    "bert-large": _bert(24, 1024, 16),
    "ernie-3.0-base": _bert(
        12, 768, 12, vocab_size=40_000, max_positions=2048, num_token_types=4, num_task_types=3, norm_epsilon=1e-5
    ),
    "albert-base": _albert(12, 768, 12),
    "albert-large": _albert(24, 1024, 16),
    "albert-xlarge": _albert(24, 2048, 16),
    "albert-xxlarge": _albert(12, 4096, 64),
    "t5-small": _t5(6, 512, 8, 2048),
    "t5-base": _t5(12, 768, 12, 3072),
    "t5-large": _t5(24, 1024, 16, 4096),
    "t5-3b": _t5(24, 1024, 32, 16_384, head_width=128),
    "t5-11b": _t5(24, 1024, 128, 65_536, head_width=128),
    "t5-1.1-small": _t5(8, 512, 6, 1024, **_T5_1_1),
    "t5-1.1-base": _t5(12, 768, 12, 2048, **_T5_1_1),
    "t5-1.1-large": _t5(24, 1024, 16, 2816, **_T5_1_1),
    "t5-1.1-xl": _t5(24, 2048, 32, 5120, **_T5_1_1),
    "t5-1.1-xxl": _t5(24, 4096, 64, 10_240, **_T5_1_1),
    "mt5-small": _t5(8, 512, 6, 1024, **_MT5),
    "mt5-base": _t5(12, 768, 12, 2048, **_MT5),
    "mt5-large": _t5(24, 1024, 16, 2816, **_MT5),
    "mt5-xl": _t5(24, 2048, 32, 5120, **_MT5),
    "mt5-xxl": _t5(24, 4096, 64, 10_240, **_MT5),
    **{f"switch-base-{experts}": _switch(12, 768, 12, 3072, experts) for experts in (8, 16, 32, 64, 128, 256)},
    "switch-large-128": _switch(24, 1024, 16, 4096, 128),
    "switch-xxl": _switch(24, 4096, 64, 10_240, 128, feed_forward="geglu_tanh"),
    "switch-c": _switch(15, 2080, 32, 6144, 2048, sparse_layers="all"),
}
