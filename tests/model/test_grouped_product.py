"""Rows of a group times the group's matrix, whatever the groups' lengths, dtypes and widths."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sanbai.model import grouped_product as module
from sanbai.model.grouped_product import FILLED, filled_groups, grouped_product, padded_product

COUNTS = pytest.mark.parametrize("counts", [[3, 0, 7, 1], [0, 0, 11, 0], [2, 2, 2, 2]])


def make_operands(counts: list[int], width: int, out_width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(sum(counts), width, generator=generator, dtype=dtype)
    matrices = torch.randn(len(counts), width, out_width, generator=generator, dtype=dtype)
    return rows.requires_grad_(), matrices.requires_grad_()


def slow_product(rows: Tensor, matrices: Tensor, counts: list[int]) -> Tensor:
    parts = rows.split(counts)
    return torch.cat([part @ matrix for part, matrix in zip(parts, matrices, strict=True)])


@COUNTS
@pytest.mark.parametrize(
    ("width", "out_width", "dtype", "tolerance"),
    [(8, 16, torch.float32, 1e-5), (7, 5, torch.float32, 1e-5), (8, 16, torch.float64, 1e-12)],
    ids=["kernel", "widths without a kernel", "float64"],
)
def test_each_group_is_multiplied_by_its_own_matrix_with_its_gradients(
    counts: list[int], width: int, out_width: int, dtype: torch.dtype, tolerance: float
) -> None:
    rows, matrices = make_operands(counts, width, out_width, dtype)
    weight = torch.randn(len(rows), out_width, generator=torch.Generator().manual_seed(4), dtype=dtype)
    out, expected = grouped_product(rows, matrices, torch.tensor(counts)), slow_product(rows, matrices, counts)
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    gradients = torch.autograd.grad((out * weight).sum(), (rows, matrices))
    wanted = torch.autograd.grad((expected * weight).sum(), (rows, matrices))
    torch.testing.assert_close(gradients, wanted, rtol=tolerance, atol=tolerance)


@COUNTS
def test_the_padded_product_passes_the_numerical_gradient_check(counts: list[int]) -> None:
    rows, matrices = make_operands(counts, 3, 2, torch.float64)
    assert torch.autograd.gradcheck(lambda x, w: padded_product(x, w, torch.tensor(counts)), (rows, matrices))


def test_no_rows_give_no_rows_and_gradients_of_zero() -> None:
    rows, matrices = make_operands([0, 0], 8, 8, torch.float32)
    out = grouped_product(rows, matrices, torch.tensor([0, 0]))
    assert out.shape == (0, 8)
    out.sum().backward()
    assert matrices.grad is not None
    assert not matrices.grad.any()


def test_under_autocast_the_product_is_of_lower_precision_and_gradients_of_the_parameters_own() -> None:
    rows, matrices = make_operands([5, 3], 16, 8, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = grouped_product(rows, matrices, torch.tensor([5, 3]))
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), slow_product(rows, matrices, [5, 3]), rtol=0.02, atol=0.05)
    (out.float() ** 2).sum().backward()
    assert rows.grad is not None
    assert rows.grad.dtype == torch.float32


@pytest.mark.parametrize("counts", [[70, 1, 64, 0, 33], [0, 0, 300]])
def test_filled_groups_give_the_same_rows_and_gradients(counts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_matrix_tiles", lambda _: True)
    rows, matrices = make_operands(counts, 8, 16, torch.float32)
    groups = filled_groups(rows, torch.tensor(counts))
    assert groups.row_P is not None
    assert groups.place_N is not None
    assert groups.count_E.tolist() == [-(-count // FILLED) * FILLED for count in counts]
    filled = grouped_product(rows[groups.row_P], matrices, groups.count_E)
    out, expected = filled[groups.place_N], slow_product(rows, matrices, counts)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(4))
    gradients = torch.autograd.grad((out * weight).sum(), (rows, matrices))
    wanted = torch.autograd.grad((expected * weight).sum(), (rows, matrices))
    torch.testing.assert_close(gradients, wanted, rtol=1e-5, atol=1e-5)


def test_groups_of_few_rows_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_matrix_tiles", lambda _: True)
    rows, _ = make_operands([3, 9, 2], 8, 16, torch.float32)
    groups = filled_groups(rows, torch.tensor([3, 9, 2]))
    assert groups.row_P is None
    assert groups.count_E.tolist() == [3, 9, 2]


@pytest.mark.parametrize("turned", [False, True], ids=["as they are", "turned"])
@pytest.mark.parametrize("counts", [[5, 0, 11], [5, 0, 12]], ids=["rows that fit", "rows that do not"])
def test_a_matrix_unit_gives_the_same_gradients(
    counts: list[int], turned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "has_matrix_tiles", lambda _: True)
    rows, matrices = make_operands(counts, 8, 16, torch.float32)
    if turned:
        matrices = matrices.detach().transpose(1, 2).contiguous().requires_grad_()
    used = matrices.transpose(1, 2) if turned else matrices
    out, expected = grouped_product(rows, used, torch.tensor(counts)), slow_product(rows, used, counts)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(4))
    gradients = torch.autograd.grad((out * weight).sum(), (rows, matrices))
    wanted = torch.autograd.grad((expected * weight).sum(), (rows, matrices))
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients, wanted, rtol=1e-5, atol=1e-5)
    assert gradients[1].is_contiguous()
