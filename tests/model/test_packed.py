"""Packed layers against the plain ones they share their parameters with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sanbai.model.packed import PackedLinear, can_pack, first_packed, pack_linears, repack

BFLOAT16 = torch.ones(1, 1, dtype=torch.bfloat16)
needs_packing = pytest.mark.skipif(not can_pack(BFLOAT16), reason="this processor has no bfloat16 products to pack for")


def make_model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.Sequential(nn.Linear(40, 7, bias=False))).to(torch.bfloat16)


@needs_packing
@pytest.mark.parametrize("rows", [1, 3, 16, 70])
def test_packed_products_are_the_plain_ones(rows: int) -> None:
    plain, packed = make_model(), make_model()
    pack_linears(packed)
    x = torch.randn(rows, 1, 24).to(torch.bfloat16)
    with torch.inference_mode():
        torch.testing.assert_close(packed(x), plain(x), rtol=2**-7, atol=2**-9)


@needs_packing
def test_parameters_keep_their_names_and_new_ones_count_once_they_are_packed() -> None:
    plain, packed = make_model(), make_model()
    pack_linears(packed)
    assert packed.state_dict().keys() == plain.state_dict().keys()
    first = first_packed(packed)
    assert first is not None
    assert first.bits == 16
    x = torch.randn(2, 24).to(torch.bfloat16)
    with torch.inference_mode():
        before = packed(x)
        for model in (plain, packed):
            for parameter in model.parameters():
                parameter.mul_(2)
        repack(packed)
        torch.testing.assert_close(packed(x), plain(x), rtol=2**-7, atol=2**-9)
        assert not torch.equal(packed(x), before)


def test_other_precisions_are_left_alone() -> None:
    model = make_model().float()
    pack_linears(model)
    assert first_packed(model) is None
    assert not any(isinstance(module, PackedLinear) for module in model.modules())
