"""Known shapes as data. Parameter counts are those of the papers (tests count them on the meta device).

GPT-2: Radford et al. 2019, table 2 (its printed 117M and 345M leave the embeddings out; the released files hold 124M
and 355M). Llama 2: Touvron et al. 2023, arXiv:2307.09288. Llama 3: arXiv:2407.21783, table 3.
"""

from __future__ import annotations

from sanbai.model.config import ModelConfig


def _gpt2(num_layers: int, width: int, num_heads: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=50_257,
        num_layers=num_layers,
        width=width,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_width=64,
        feed_forward="gelu_tanh",
        feed_forward_width=4 * width,
        norm="layer",
        norm_epsilon=1e-5,
        positions="learned",
        max_positions=1024,
        bias=True,
        tied_embeddings=True,
    )


PRESETS: dict[str, ModelConfig] = {
    "tiny": ModelConfig(),
    "small": ModelConfig(
        vocab_size=4096, num_layers=6, width=384, num_heads=6, num_kv_heads=6, head_width=64, feed_forward_width=1024
    ),
    "gpt2": _gpt2(12, 768, 12),
    "gpt2-medium": _gpt2(24, 1024, 16),
    "gpt2-large": _gpt2(36, 1280, 20),
    "gpt2-xl": _gpt2(48, 1600, 25),
    "llama-2-7b": ModelConfig(
        vocab_size=32_000,
        num_layers=32,
        width=4096,
        num_heads=32,
        num_kv_heads=32,
        head_width=128,
        feed_forward_width=11_008,
        norm_epsilon=1e-5,
        max_positions=4096,
        tied_embeddings=False,
    ),
    "llama-3-8b": ModelConfig(
        vocab_size=128_256,
        num_layers=32,
        width=4096,
        num_heads=32,
        num_kv_heads=8,
        head_width=128,
        feed_forward_width=14_336,
        norm_epsilon=1e-5,
        max_positions=8192,
        rope_theta=500_000.0,
        tied_embeddings=False,
    ),
}
