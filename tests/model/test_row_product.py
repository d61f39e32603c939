"""Products of one row against the plain ones, and what rounding may lose."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sanbai.foundation.errors import ModelError
from sanbai.model.packed import ROW_PRODUCTS, Bits, PackedLinear, can_pack, fused_linear
from sanbai.model.row_product import GROUP, PIECE, HalfMatrix, Int4Matrix, Int8Matrix

needs_packing = pytest.mark.skipif(
    not can_pack(torch.ones(1, 1, dtype=torch.bfloat16)), reason="this processor has no bfloat16 products"
)


def make(num_outputs: int, num_inputs: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(num_outputs)
    weight = torch.randn(num_outputs, num_inputs, generator=generator) * torch.rand(num_outputs, 1, generator=generator)
    return weight, torch.randn(num_outputs, generator=generator), torch.randn(num_inputs, generator=generator)


@pytest.mark.parametrize("bits", ROW_PRODUCTS)
@pytest.mark.parametrize("num_outputs", [1, 40, PIECE, 2 * PIECE + 5])
@torch.inference_mode()
def test_a_row_is_multiplied_by_the_rounded_weights(bits: Bits, num_outputs: int) -> None:
    weight, bias, x = make(num_outputs, 4 * GROUP)
    kind = ROW_PRODUCTS[bits]
    for added in (bias, None):
        expected = F.linear(x.double(), kind.rounded(weight).double(), None if added is None else added.double())
        got = kind(weight, added)(x.unsqueeze(0))[0].double()
        assert got.shape == expected.shape
        assert (got - expected).abs().max() < (1e-4 if bits == 8 else 0.02) * (1 + expected.abs().max())


def test_rounding_errs_by_half_a_step() -> None:
    weight, _, _ = make(PIECE + 7, 3 * GROUP)
    assert torch.equal(HalfMatrix.rounded(weight), weight)
    padded = F.pad(weight, (0, 0, 0, PIECE - 7)).view(2, PIECE, -1)
    step_8 = ((padded.amax(dim=1) - padded.amin(dim=1)) / 255).repeat_interleave(PIECE, dim=0)[: len(weight)]
    assert ((Int8Matrix.rounded(weight) - weight).abs() <= 0.51 * step_8).all()
    groups = weight.view(len(weight), -1, GROUP)
    step_4 = ((groups.amax(dim=-1) - groups.amin(dim=-1)) / 15).repeat_interleave(GROUP, dim=1)
    # Scale and offset are rounded to bfloat16 themselves: up to 8 scales' and one offset's 2^-9, of 15 steps' range.
    assert ((Int4Matrix.rounded(weight) - weight).abs() <= 0.6 * step_4).all()


def test_rounding_again_changes_nothing() -> None:
    weight, _, _ = make(70, 2 * GROUP)
    once = Int8Matrix.rounded(weight)
    torch.testing.assert_close(Int8Matrix.rounded(once), once, rtol=0, atol=1e-6)


def test_a_shape_without_groups_is_refused() -> None:
    with pytest.raises(ModelError, match=r"33 inputs.*multiple of 32"):
        Int4Matrix(torch.ones(2, 33), None)


@needs_packing
@pytest.mark.parametrize("bits", ROW_PRODUCTS)
@pytest.mark.parametrize("rows", [1, 5])
@torch.inference_mode()
def test_what_follows_a_product_is_computed_with_it(bits: Bits, rows: int) -> None:
    weight, bias, _ = make(48, 2 * GROUP)
    weight, bias = weight.bfloat16(), bias.bfloat16()
    x = torch.randn(rows, 2 * GROUP).to(torch.float32 if rows == 1 else torch.bfloat16)
    other = torch.randn(rows, 48).to(x.dtype)
    linear = PackedLinear(weight, bias, bits, by_rows=True)
    rounded = ROW_PRODUCTS[bits].rounded(weight).double()
    plain = F.linear(x.double(), rounded, bias.double())
    oracle = {
        "none": (fused_linear(linear, x), plain),
        "silu": (fused_linear(linear, x, activation="swiglu"), F.silu(plain)),
        "squared": (fused_linear(linear, x, activation="squared_relu"), plain.relu().square()),
        "tanh": (fused_linear(linear, x, activation="gelu_tanh"), F.gelu(plain, approximate="tanh")),
        "times": (fused_linear(linear, x, times=other), plain * other.double()),
        "plus": (fused_linear(linear, x, plus=other), plain + other.double()),
    }
    for got, expected in oracle.values():
        assert got.dtype == x.dtype
        torch.testing.assert_close(got.double(), expected, rtol=0.03, atol=0.15)
