from __future__ import annotations

import math

import pytest
import torch

from sanbai.foundation.seeds import torch_generator
from sanbai.objectives.distillation import distillation_loss, soft_target_loss
from sanbai.objectives.language import categorical_loss


def drawn(name: str, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return 2 * torch.randn(*shape, generator=torch_generator(0, "tests", name), dtype=dtype)


def test_the_soft_loss_is_torch_s_divergence_and_a_loop_over_plain_floats() -> None:
    student, teacher = drawn("student", 5, 7), drawn("teacher", 5, 7)
    found = soft_target_loss(student, teacher, denominator=5.0)
    expected = torch.nn.KLDivLoss(reduction="batchmean", log_target=True)(
        student.log_softmax(-1), teacher.log_softmax(-1)
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    total = 0.0
    for q_logits, p_logits in zip(student.tolist(), teacher.tolist(), strict=True):
        q_sum, p_sum = (math.fsum(map(math.exp, logits)) for logits in (q_logits, p_logits))
        for q, p in zip(q_logits, p_logits, strict=True):
            share = math.exp(p) / p_sum
            total += share * (math.log(share) - math.log(math.exp(q) / q_sum))
    assert found.item() == pytest.approx(total / 5, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_student_that_is_its_teacher_has_no_loss_and_no_gradient(dtype: torch.dtype) -> None:
    teacher = drawn("teacher", 6, 11, dtype=torch.float64).to(dtype)
    student = teacher.clone().requires_grad_()
    loss = soft_target_loss(student, teacher, denominator=6.0)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.item() == 0.0
    assert gradient.abs().max().item() <= 1e-7


def test_the_gradient_is_the_difference_of_the_probabilities_and_none_reaches_the_teacher() -> None:
    student, teacher = drawn("student", 4, 9).requires_grad_(), drawn("teacher", 4, 9).requires_grad_()
    soft_target_loss(student, teacher, denominator=3.0).backward()  # type: ignore[no-untyped-call]
    assert teacher.grad is None
    torch.testing.assert_close(student.grad, ((student.softmax(-1) - teacher.softmax(-1)) / 3).detach())


def test_the_gradient_is_that_of_the_cross_entropy_with_the_teacher_s_probabilities() -> None:
    student, teacher = drawn("student", 4, 9).requires_grad_(), drawn("teacher", 4, 9)
    (found,) = torch.autograd.grad(soft_target_loss(student, teacher, denominator=4.0), student)
    cross_entropy = torch.nn.functional.cross_entropy(student, teacher.softmax(-1))
    (expected,) = torch.autograd.grad(cross_entropy, student)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("hard_share", [0.0, 0.75, 1.0])
def test_text_and_teacher_are_mixed_by_their_shares(hard_share: float) -> None:
    student, teacher = drawn("student", 5, 7), drawn("teacher", 5, 7)
    target = torch.tensor([0, 6, 3, 3, 1])
    found = distillation_loss(student, teacher, target, hard_share=hard_share, denominator=2.0)
    hard = -student.log_softmax(-1)[range(5), target].sum() / 2
    soft = torch.nn.functional.kl_div(
        student.log_softmax(-1), teacher.log_softmax(-1), reduction="sum", log_target=True
    )
    torch.testing.assert_close(found, hard_share * hard + (1 - hard_share) * soft / 2)


def test_the_parts_of_a_batch_add_up() -> None:
    student, teacher = drawn("student", 6, 5), drawn("teacher", 6, 5)
    target = torch.arange(6) % 5
    whole = distillation_loss(student, teacher, target, hard_share=0.5, denominator=6.0)
    parts = [
        distillation_loss(student[part], teacher[part], target[part], hard_share=0.5, denominator=6.0)
        for part in (slice(0, 2), slice(2, 6))
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_the_text_s_part_alone_is_the_usual_loss() -> None:
    student, target = drawn("student", 5, 7), torch.tensor([1, 2, 3, 4, 5])
    found = distillation_loss(student, drawn("teacher", 5, 7), target, hard_share=1.0, denominator=5.0)
    torch.testing.assert_close(found, categorical_loss(student, target, denominator=5.0))


def test_the_gradient_is_the_slope() -> None:
    teacher, target = drawn("teacher", 3, 4), torch.tensor([0, 3, 1])

    def loss(student: torch.Tensor) -> torch.Tensor:
        return distillation_loss(student, teacher, target, hard_share=0.75, denominator=3.0)

    assert torch.autograd.gradcheck(loss, drawn("student", 3, 4).requires_grad_())
