"""Learning from a teacher's probabilities beside the text's tokens.

Hinton et al. 2015, arXiv:1503.02531, without a temperature, as Switch Transformer distils sparse models into dense ones
(Fedus et al. 2021, arXiv:2101.03961, section 4.2: 0.75 of the text, 0.25 of the teacher).

Shapes: N tokens to be learned, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sanbai.objectives.language import categorical_loss


def soft_target_loss(logits_NV: Tensor, teacher_logits_NV: Tensor, *, denominator: float) -> Tensor:
    """Σ_n KL(teacher_n ‖ student_n) / denominator, in nats.

    KL(p ‖ q) = Σ_v p_v (log p_v - log q_v)

    It is the cross-entropy with the teacher's probabilities less their entropy, which no student changes: the gradient
    is the same, (q - p) / denominator for each logit, and the value is 0 where the student is the teacher.

    Args:
        logits_NV: the student's; carries the gradient; reduced in float32 (float64 stays).
        teacher_logits_NV: no gradient flows here.
        denominator: above 0; with N the mean over tokens.

    Returns:
        A scalar, float32 at least.
    """
    student_NV, teacher_NV = (
        F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
        for logits in (logits_NV, teacher_logits_NV.detach())
    )
    return (teacher_NV.exp() * (teacher_NV - student_NV)).sum() / denominator


def distillation_loss(
    logits_NV: Tensor, teacher_logits_NV: Tensor, target_N: Tensor, *, hard_share: float, denominator: float
) -> Tensor:
    """Mix what the text and what the teacher say.

    (hard_share · Σ_n -log q_n(target_n) + (1 - hard_share) · Σ_n KL(teacher_n ‖ q_n)) / denominator

    Args:
        logits_NV: the student's, log q; carries the gradient.
        teacher_logits_NV: no gradient flows here.
        target_N: the text's tokens.
        hard_share: weight of the text, in [0, 1]; the teacher has the rest.
        denominator: above 0; a part of a batch is divided by the whole batch's number, so that parts add up.

    Returns:
        A scalar, float32 at least.
    """
    hard = categorical_loss(logits_NV, target_N, denominator=denominator)
    soft = soft_target_loss(logits_NV, teacher_logits_NV, denominator=denominator)
    return hard_share * hard + (1 - hard_share) * soft
