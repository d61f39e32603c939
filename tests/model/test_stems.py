"""Attention in two parts, what texts begin with together and what each has alone, against the formula over all keys."""

from __future__ import annotations

import pytest
import torch

from sanbai.model.attention import attention_part, reference_attention
from sanbai.model.config import ModelConfig
from sanbai.model.mask import position_mask
from sanbai.model.stems import StepStems, can_have_stems
from sanbai.model.window import Window

CONFIG = ModelConfig(num_layers=2, num_heads=6, num_kv_heads=2, head_width=8)
STEMS = {7: [0, 2, 5], 3: [1, 4]}  # texts 3 and 6 have none
OWN = [1, 4, 2, 9, 5, 3, 1]


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 0.02)], ids=["float64", "bfloat16"]
)
def test_both_parts_together_are_the_formula(dtype: torch.dtype, tolerance: float, scaled: bool) -> None:
    generator = torch.Generator().manual_seed(1)

    def rand(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    window = Window(CONFIG, dtype=dtype, device="cpu", max_lanes=9)
    window.fit(len(STEMS), max(STEMS))
    q, k, v = rand(7, 6, 8), rand(7, 2, max(OWN), 8), rand(7, 2, max(OWN), 8)
    stems = [(rand(1, 2, length, 8), rand(1, 2, length, 8)) for length in STEMS]
    for place, (stem_k, stem_v) in enumerate(stems):
        window.load(1, torch.tensor([place]), stem_k, stem_v)
    mask = position_mask(torch.tensor(OWN)[:, None] - 1, max(OWN), dtype)
    step = StepStems(window, list(STEMS), list(STEMS.values()))
    found = step.attend(1, q, k, v, mask, scaled=scaled)
    assert found.shape == (7, 6, 1, 8)
    for text, length in enumerate(OWN):
        keys, values = k[text, :, :length], v[text, :, :length]
        for (stem_k, stem_v), members in zip(stems, STEMS.values(), strict=True):
            if text in members:
                keys, values = torch.cat((stem_k[0], keys), dim=1), torch.cat((stem_v[0], values), dim=1)
        seen = (each.double().unsqueeze(0) for each in (q[text].unsqueeze(1), keys, values))
        expected = reference_attention(*seen, torch.zeros(1, dtype=torch.float64), scaled=scaled)
        torch.testing.assert_close(found[text].double(), expected[0], rtol=0, atol=tolerance)


def test_the_weight_of_a_part_is_the_log_of_its_exponentials_sum() -> None:
    generator = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(3, size, 4, generator=generator, dtype=torch.float64) for size in (2, 9, 9))
    mask = position_mask(torch.tensor([[0], [4], [8]]), 9, torch.float64)[:, 0]
    _, weight = attention_part(q, k, v, mask)
    torch.testing.assert_close(weight, (q @ k.transpose(1, 2) / 2 + mask).logsumexp(-1, keepdim=True))


def test_where_a_query_stands_must_not_matter() -> None:
    assert can_have_stems(CONFIG)
    assert not can_have_stems(CONFIG.model_copy(update={"positions": "relative"}))
    assert not can_have_stems(CONFIG.model_copy(update={"masks": ("causal", "banded")}))
