"""The norm's hand-written gradient against finite differences and torch's own values."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sanbai.model.norm import RMSNorm


def test_the_norm_is_that_of_torch_with_its_gradient() -> None:
    generator = torch.Generator().manual_seed(1)
    norm = RMSNorm(7, 1e-3).double()
    norm.weight.data = torch.randn(7, generator=generator, dtype=torch.float64)
    x = torch.randn(2, 3, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(norm(x), F.rms_norm(x, (7,), norm.weight, 1e-3))
    assert torch.autograd.gradcheck(norm, (x,))
    assert torch.autograd.gradcheck(lambda weight: torch.func.functional_call(norm, {"weight": weight}, x), norm.weight)


def test_the_norm_of_bfloat16_sums_in_float32() -> None:
    norm = RMSNorm(512, 1e-6).bfloat16()
    x = torch.randn(4, 512, generator=torch.Generator().manual_seed(1)).bfloat16()
    exact = F.rms_norm(x.double(), (512,), eps=1e-6)
    torch.testing.assert_close(norm(x).double(), exact, rtol=2**-8, atol=1e-3)
