"""Learning from preferences without a reward model: the policy's own log-probabilities are the reward.

The best policy for a reward r at a price β on KL to a reference ρ is π(y|x) ∝ ρ(y|x) exp(r(x, y) / β), so that

    r(x, y) = β log π(y|x) / ρ(y|x) + (something of x alone)

is the reward that a policy is best for: its *implicit* one (Rafailov et al. 2023, arXiv:2305.18290, eq. 5). It is
fitted as a reward model is: by all pairs of a prompt, a mean over a prompt's pairs and then over prompts.

Shapes: B prompts, K answers a prompt (padded to the largest K of the batch), N answers of any prompts. Padding may hold
anything finite. `preference_BKK` is c_bij, how many labelers placed answer i strictly above answer j, 0 for ties and
padding; `denominator` is the number of prompts of the whole batch, of which these may be a part.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sanbai.objectives.pairs import mean_over_pairs, pair_margins
from sanbai.objectives.reward import pair_accuracy, ranking_loss


def dpo_loss(
    logratio_BK: Tensor, preference_BKK: Tensor, *, beta: float, label_smoothing: float, denominator: float
) -> Tensor:
    """Negative log-likelihood of the preferences under Bradley-Terry with the implicit reward.

    of a pair: -(1 - ε) log σ(β (h_w - h_l)) - ε log σ(β (h_l - h_w)),   h = log π(y|x) - log ρ(y|x)

    (Rafailov et al. 2023, arXiv:2305.18290, eq. 7; ε is the conservative variant of Mitchell 2023,
    ericmitchell.ai/cdpo.pdf: labels are wrong that often.) It is the reward model's loss on β h.

    Args:
        logratio_BK: h, nats of the whole answer; carries the gradient.
        preference_BKK: c.
        beta: β, above 0: the price of a nat of KL that the fitted policy is the best for.
        label_smoothing: ε, in [0, 0.5); above 0 margins stay finite, at log((1 - ε) / ε).
        denominator: prompts of the whole batch.

    Returns:
        A float32 scalar; log 2 for a whole batch where policy and reference are one.
    """
    reward_BK = beta * logratio_BK
    loss = ranking_loss(reward_BK, preference_BKK, denominator=denominator)
    if label_smoothing == 0:
        return loss
    turned = ranking_loss(-reward_BK, preference_BKK, denominator=denominator)
    return (1 - label_smoothing) * loss + label_smoothing * turned


def ipo_loss(mean_logratio_BK: Tensor, preference_BKK: Tensor, *, tau: float, denominator: float) -> Tensor:
    """Squared distance of each pair's margin to 1 / (2 τ): a margin that preferences without exception do not blow up.

    of a pair: (h_w - h_l - 1 / (2 τ))²

    (Azar et al. 2023, arXiv:2310.12036, eq. 17.) The paper writes h with log-probabilities of whole answers, and its
    authors later said that these are to be means over an answer's tokens (huggingface.co/blog/pref-tuning): else the
    same τ asks for another margin at another length. So h is a mean here.

    Args:
        mean_logratio_BK: h, nats a token of the answer; carries the gradient.
        preference_BKK: c.
        tau: τ, above 0; a small one asks for a large margin.
        denominator: prompts of the whole batch.
    """
    error_BKK = pair_margins(mean_logratio_BK) - 1 / (2 * tau)
    return mean_over_pairs(error_BKK.square(), preference_BKK, denominator=denominator)


def simpo_loss(
    mean_logprob_BK: Tensor, preference_BKK: Tensor, *, beta: float, margin: float, denominator: float
) -> Tensor:
    """Negative log-likelihood of the preferences with the mean log-probability as reward, at a distance; no reference.

    of a pair: -log σ(β l_w - β l_l - γ),   l = 1/|y| log π(y|x)

    (Meng et al. 2024, arXiv:2405.14734, eq. 6.)

    Args:
        mean_logprob_BK: l, nats a token of the answer; carries the gradient.
        preference_BKK: c.
        beta: β, above 0; since l is a mean, its authors' is 2 to 10.
        margin: γ, 0 or more, in units of reward; its authors' is 0.25 to 0.8 times β.
        denominator: prompts of the whole batch.
    """
    margin_BKK = beta * pair_margins(mean_logprob_BK) - margin
    return mean_over_pairs(-F.logsigmoid(margin_BKK), preference_BKK, denominator=denominator)


def kto_loss(
    logratio_BK: Tensor,
    desirable_BK: Tensor,
    undesirable_BK: Tensor,
    baseline: Tensor,
    *,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
    denominator: float,
) -> Tensor:
    """How far answers fall short of the value that people would see in them, good and bad ones apart; no pairs needed.

    of a desirable answer:    λ_D (1 - σ(β (h - z)))
    of an undesirable answer: λ_U (1 - σ(β (z - h)))

    (Ethayarajh et al. 2024, arXiv:2402.01306, eq. 8.) A mean over a prompt's verdicts, then over prompts. Pairs become
    verdicts as in the paper: the better one desirable, the worse one undesirable, each as often as it is in a pair.

    Args:
        logratio_BK: h = log π(y|x) - log ρ(y|x), nats of the whole answer; carries the gradient.
        desirable_BK: how often each answer was called good.
        undesirable_BK: how often bad; a prompt has at least one verdict.
        baseline: z of `kl_baseline`.
        beta: β, above 0.
        desirable_weight: λ_D.
        undesirable_weight: λ_U; with n_D good and n_U bad ones, λ_D n_D / (λ_U n_U) should be near 1.
        denominator: prompts of the whole batch.

    Returns:
        A float32 scalar; λ / 2 where policy and reference are one and λ = λ_D = λ_U.
    """
    above_BK = beta * (logratio_BK - baseline.detach())
    good_BK = desirable_weight * desirable_BK * torch.sigmoid(-above_BK)
    bad_BK = undesirable_weight * undesirable_BK * torch.sigmoid(above_BK)
    num_verdicts_B = (desirable_BK + undesirable_BK).sum(1)
    return ((good_BK + bad_BK).sum(1) / num_verdicts_B.clamp_min(1)).sum() / denominator


def kl_baseline(logratio_N: Tensor) -> Tensor:
    """Estimate z = KL(π ‖ ρ) for `kto_loss` by answers to *other* prompts: max(0, mean log π(y'|x) / ρ(y'|x)).

    (Ethayarajh et al. 2024, section 4.1.) y' are answers of the same batch under a prompt that is not theirs. They are
    not π's samples, so this is no estimate of the KL in the usual sense; it stands still where the policy has moved on
    these prompts alone, and rises where it likes such answers everywhere.

    Args:
        logratio_N: nats of a whole answer.

    Returns:
        A scalar, 0 or more, without gradient.
    """
    return logratio_N.detach().mean().clamp_min(0)


def thumb_numbers(logratio_N: Tensor, thumbs_N2: Tensor) -> dict[str, float]:
    """Return what tells whether learning from thumbs is healthy; what no thumb says anything of is left out.

    `thumb_accuracy`: share of pairs of a thumb up and a thumb down, whatever their prompts, of which the first is on
    the answer of higher h, equal ones counting one half; it is the area under the ROC curve, ½ by chance however few
    thumbs go down. `up_logratio`, `down_logratio`: the mean h of either.

    Args:
        logratio_N: h = log π(y|x) - log ρ(y|x), nats of the whole answer.
        thumbs_N2: how many thumbs up, and how many down, each answer got.
    """
    order_N = logratio_N.argsort()
    logratio_N, thumbs_N2 = logratio_N[order_N].double(), thumbs_N2[order_N].double()
    up_N, down_N = thumbs_N2.unbind(1)
    num_up, num_down = thumbs_N2.sum(0).tolist()
    numbers = {}
    if num_up and num_down:
        down_before = F.pad(down_N.cumsum(0), (1, 0))
        below_N, up_to_N = (down_before[torch.searchsorted(logratio_N, logratio_N, side=s)] for s in ("left", "right"))
        numbers["thumb_accuracy"] = (up_N * (below_N + up_to_N)).sum().item() / (2 * num_up * num_down)
    if num_up:
        numbers["up_logratio"] = (logratio_N * up_N).sum().item() / num_up
    if num_down:
        numbers["down_logratio"] = (logratio_N * down_N).sum().item() / num_down
    return numbers


def pair_sums(
    reward_BK: Tensor, logprob_BK: Tensor, reference_logprob_BK: Tensor, preference_BKK: Tensor
) -> dict[str, Tensor]:
    """Return, summed over strict preferences, what tells whether learning is healthy; divided by their number, means.

    `accuracy`: the better answer has the higher reward, equal ones counting one half; `margin`: how much higher;
    `chosen_logprob`, `rejected_logprob`: nats of the whole answer; `chosen_logratio`, `rejected_logratio`: the same
    less the reference's. Margins grow also while both fall, when probability leaves for answers that nobody ranked.

    Args:
        reward_BK: the implicit reward.
        logprob_BK: log π.
        reference_logprob_BK: log ρ.
        preference_BKK: c.
    """
    num_pairs, chosen_BK, rejected_BK = preference_BKK.sum(), preference_BKK.sum(2), preference_BKK.sum(1)
    logratio_BK = logprob_BK - reference_logprob_BK
    return {
        "accuracy": pair_accuracy(reward_BK, preference_BKK) * num_pairs,
        "margin": (pair_margins(reward_BK) * preference_BKK).sum(),
        "chosen_logprob": (logprob_BK * chosen_BK).sum(),
        "rejected_logprob": (logprob_BK * rejected_BK).sum(),
        "chosen_logratio": (logratio_BK * chosen_BK).sum(),
        "rejected_logratio": (logratio_BK * rejected_BK).sum(),
    }
