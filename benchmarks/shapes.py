"""The shapes that generation is measured with: GPT-2's, which transformers decodes as it is, and a tenth of it."""

from __future__ import annotations

from sanbai.model.presets import PRESETS

SHAPES = {
    "12m": PRESETS["gpt2"].model_copy(
        update={
            "vocab_size": 4096,
            "num_layers": 6,
            "width": 384,
            "num_heads": 6,
            "num_kv_heads": 6,
            "feed_forward_width": 1536,
        }
    ),
    "124m": PRESETS["gpt2"],
}
