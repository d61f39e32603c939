"""Oracles: loops over pairs in plain Python floats, gradients by hand, and a toy whose best policy is known."""

import itertools
import math
import random
from collections.abc import Callable

import pytest
import torch
from sklearn.metrics import roc_auc_score
from tests.objectives.test_reward import PROMPTS, pairs, preferences
from torch import Tensor

from sanbai.objectives.direct import dpo_loss, ipo_loss, kl_baseline, kto_loss, simpo_loss, thumb_numbers

RANDOM = random.Random(1)
RATIOS = [[RANDOM.gauss(0, 3) for _ in range(9)] for _ in range(4)]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def over_prompts(loss_of_pair: Callable[[float, float], float]) -> float:
    """The mean over prompts of the mean over a prompt's pairs, given (better, worse)."""
    means = []
    for ratios, labelers in zip(RATIOS, PROMPTS, strict=True):
        losses = [loss_of_pair(ratios[better], ratios[worse]) for better, worse in pairs(labelers)]
        if losses:
            means.append(math.fsum(losses) / len(losses))
    return math.fsum(means) / len(means)


def ratios(*, requires_grad: bool = False) -> Tensor:
    return torch.tensor(RATIOS, dtype=torch.float64, requires_grad=requires_grad)


def verdicts() -> tuple[Tensor, Tensor]:
    preference_BKK = preferences()
    return preference_BKK.sum(2), preference_BKK.sum(1)


def losses(ratio_BK: Tensor, prompts: slice = slice(0, 4)) -> dict[str, Tensor]:
    """Every loss on the same numbers; `prompts` are a part of the batch, of which three have a pair."""
    ratio_BK, preference_BKK = ratio_BK[prompts], preferences()[prompts]
    desirable_BK, undesirable_BK = (verdict_BK[prompts] for verdict_BK in verdicts())
    return {
        "dpo": dpo_loss(ratio_BK, preference_BKK, beta=0.3, label_smoothing=0.0, denominator=3),
        "conservative dpo": dpo_loss(ratio_BK, preference_BKK, beta=0.3, label_smoothing=0.2, denominator=3),
        "ipo": ipo_loss(ratio_BK, preference_BKK, tau=0.3, denominator=3),
        "simpo": simpo_loss(ratio_BK, preference_BKK, beta=2.0, margin=0.7, denominator=3),
        "kto": kto_loss(
            ratio_BK, desirable_BK, undesirable_BK, torch.tensor(0.8, dtype=torch.float64),
            beta=0.3, desirable_weight=1.5, undesirable_weight=0.9, denominator=3,
        ),
    }  # fmt: skip


#: The published formulas of one pair, in plain Python, as TRL has them too.
BY_HAND: dict[str, Callable[[float, float], float]] = {
    "dpo": lambda w, r: -math.log(sigmoid(0.3 * (w - r))),
    "conservative dpo": lambda w, r: (
        -0.8 * math.log(sigmoid(0.3 * (w - r))) - 0.2 * math.log(sigmoid(-0.3 * (w - r)))
    ),
    "ipo": lambda w, r: (w - r - 1 / (2 * 0.3)) ** 2,
    "simpo": lambda w, r: -math.log(sigmoid(2.0 * (w - r - 0.7 / 2.0))),
    "kto": lambda w, r: (
        (1.5 * (1 - sigmoid(0.3 * (w - 0.8))) + 0.9 * (1 - sigmoid(0.3 * (0.8 - r)))) / 2
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_a_loss_is_its_formula_averaged_over_pairs_and_then_over_prompts(name: str) -> None:
    assert losses(ratios())[name].item() == pytest.approx(over_prompts(BY_HAND[name]), rel=1e-12)


@pytest.mark.parametrize("name", BY_HAND)
def test_the_gradient_is_that_of_differences(name: str) -> None:
    assert torch.autograd.gradcheck(lambda ratio_BK: losses(ratio_BK)[name], (ratios(requires_grad=True),))


@pytest.mark.parametrize("name", BY_HAND)
def test_ties_pull_nowhere_and_the_better_answer_is_pulled_up(name: str) -> None:
    ratio_BK = torch.zeros(4, 9, dtype=torch.float64, requires_grad=True)
    losses(ratio_BK)[name].backward()
    assert ratio_BK.grad is not None
    assert ratio_BK.grad[3].abs().max() == 0.0  # all tied
    assert ratio_BK.grad[0, 2] < 0 < ratio_BK.grad[0, 1]  # the best of its prompt and the worst


@pytest.mark.parametrize("name", BY_HAND)
def test_parts_of_a_batch_add_up_to_the_whole(name: str) -> None:
    total = sum(losses(ratios(), part)[name].item() for part in (slice(0, 1), slice(1, 4)))
    assert total == pytest.approx(losses(ratios())[name].item(), rel=1e-12)


def test_a_policy_that_is_its_reference_has_losses_known_beforehand() -> None:
    equal = losses(torch.zeros(4, 9, dtype=torch.float64))
    assert equal["dpo"].item() == pytest.approx(math.log(2), rel=1e-12)
    assert equal["conservative dpo"].item() == pytest.approx(math.log(2), rel=1e-12)
    assert equal["ipo"].item() == pytest.approx((1 / 0.6) ** 2, rel=1e-12)
    desirable_BK, undesirable_BK = verdicts()
    kto = kto_loss(
        torch.zeros(4, 9), desirable_BK, undesirable_BK, torch.tensor(0.0),
        beta=0.3, desirable_weight=1.0, undesirable_weight=1.0, denominator=3,
    )  # fmt: skip
    assert kto.item() == pytest.approx(0.5, rel=1e-6)


def test_dpos_gradient_weighs_a_pair_by_how_wrong_its_implicit_rewards_are() -> None:
    """Rafailov et al. 2023, section 4: ∇ = -β σ(r_l - r_w) [∇ log π(y_w) - ∇ log π(y_l)]."""
    logratio_BK = torch.tensor([[0.4, -1.1]], dtype=torch.float64, requires_grad=True)
    preference_BKK = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]], dtype=torch.float64)
    dpo_loss(logratio_BK, preference_BKK, beta=0.5, label_smoothing=0.0, denominator=1).backward()
    weight = 0.5 * sigmoid(0.5 * (-1.1 - 0.4))
    assert logratio_BK.grad is not None
    assert logratio_BK.grad[0].tolist() == pytest.approx([-weight, weight], rel=1e-12)


SCORES = (1.5, 0.2, -0.4, -1.3)
REFERENCE = (0.1, 0.4, 0.3, 0.2)
BETA = 0.5


def descend(loss_of: Callable[[Tensor], Tensor], *, steps: int = 400) -> Tensor:
    """The log-ratios of a policy over four answers, from the reference to the loss's minimum."""
    reference_K = torch.tensor(REFERENCE, dtype=torch.float64).log()
    logits_K = reference_K.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([logits_K], max_iter=steps, tolerance_grad=1e-12, tolerance_change=1e-16)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of((logits_K.log_softmax(0) - reference_K).unsqueeze(0))
        loss.backward()
        return loss

    optimizer.step(closure)
    return (logits_K.detach().log_softmax(0) - reference_K).unsqueeze(0)


def bradley_terry() -> Tensor:
    """c_ij in proportion to σ(s_i - s_j): what endlessly many labelers would say."""
    return torch.tensor([[[sigmoid(a - b) if a != b else 0.0 for b in SCORES] for a in SCORES]], dtype=torch.float64)


def test_dpos_optimum_has_the_labelers_scores_as_implicit_rewards_and_is_the_best_policy_for_them() -> None:
    fitted_BK = descend(lambda h: dpo_loss(h, bradley_terry(), beta=BETA, label_smoothing=0.0, denominator=1))
    implicit = (BETA * fitted_BK[0]).tolist()
    differences = [implicit[i] - implicit[j] for i, j in itertools.combinations(range(4), 2)]
    expected = [SCORES[i] - SCORES[j] for i, j in itertools.combinations(range(4), 2)]
    assert differences == pytest.approx(expected, abs=1e-5)
    # π(y) ∝ ρ(y) exp(s(y) / β), what RLHF with the true scores would end in
    weights = [p * math.exp(s / BETA) for p, s in zip(REFERENCE, SCORES, strict=True)]
    policy = [p * math.exp(h) for p, h in zip(REFERENCE, fitted_BK[0].tolist(), strict=True)]
    assert policy == pytest.approx([weight / sum(weights) for weight in weights], abs=1e-5)


def test_without_exceptions_ipo_stops_at_its_margin_and_label_smoothing_at_its_own() -> None:
    """Two answers, one always preferred: DPO's margin would grow without end."""
    always = torch.tensor([[[0.0, 1.0, 0.0, 0.0]] + [[0.0] * 4] * 3], dtype=torch.float64)
    ipo_BK = descend(lambda h: ipo_loss(h, always, tau=0.25, denominator=1))
    assert (ipo_BK[0, 0] - ipo_BK[0, 1]).item() == pytest.approx(1 / (2 * 0.25), abs=1e-6)
    smoothed_BK = descend(lambda h: dpo_loss(h, always, beta=BETA, label_smoothing=0.1, denominator=1))
    assert BETA * (smoothed_BK[0, 0] - smoothed_BK[0, 1]).item() == pytest.approx(math.log(0.9 / 0.1), abs=1e-5)


def test_a_verdict_without_a_pair_counts_alone() -> None:
    """A single answer with one thumb down beside a prompt with two thumbs up and one down."""
    ratio_BK = torch.tensor([[0.5, 99.0], [1.0, -2.0]], dtype=torch.float64)
    good_BK = torch.tensor([[0.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    bad_BK = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    found = kto_loss(
        ratio_BK, good_BK, bad_BK, torch.tensor(0.25, dtype=torch.float64),
        beta=2.0, desirable_weight=1.0, undesirable_weight=3.0, denominator=2,
    )  # fmt: skip
    first = 3 * sigmoid(2 * (0.5 - 0.25))
    second = (2 * sigmoid(-2 * (1.0 - 0.25)) + 3 * sigmoid(2 * (-2.0 - 0.25))) / 3
    assert found.item() == pytest.approx((first + second) / 2, rel=1e-12)


def test_the_baseline_is_a_mean_that_is_never_negative_and_carries_no_gradient() -> None:
    logratio_N = torch.tensor([0.5, -0.1, 0.2], requires_grad=True)
    baseline = kl_baseline(logratio_N)
    assert baseline.item() == pytest.approx(0.2)
    assert not baseline.requires_grad
    assert kl_baseline(-logratio_N).item() == 0.0


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_kto_on_single_answers_is_trls_definition(baseline: float) -> None:
    """Desirable ones first, then undesirable ones, weighed, in one mean; a prompt has one answer with one verdict."""
    good, bad = [0.3, -1.2, 2.0, 0.1, 0.0], [1.1, -0.4]
    losses = [1.5 * (1 - sigmoid(0.2 * (h - baseline))) for h in good]
    losses += [3.0 * (1 - sigmoid(0.2 * (baseline - h))) for h in bad]
    found = kto_loss(
        torch.tensor([*good, *bad], dtype=torch.float64).unsqueeze(1),
        torch.tensor([1.0] * 5 + [0.0] * 2, dtype=torch.float64).unsqueeze(1),
        torch.tensor([0.0] * 5 + [1.0] * 2, dtype=torch.float64).unsqueeze(1),
        torch.tensor(baseline, dtype=torch.float64),
        beta=0.2, desirable_weight=1.5, undesirable_weight=3.0, denominator=7,
    )  # fmt: skip
    assert found.item() == pytest.approx(math.fsum(losses) / 7, rel=1e-12)


def test_weights_against_the_numbers_let_few_thumbs_down_pull_as_hard_as_many_up() -> None:
    """λ_D n_D = λ_U n_U, where policy and reference are one: the two kinds' gradients are equal and opposite."""
    logratio_BK = torch.zeros(10, 1, dtype=torch.float64, requires_grad=True)
    up_BK = torch.tensor([1.0] * 9 + [0.0], dtype=torch.float64).unsqueeze(1)
    kto_loss(
        logratio_BK, up_BK, 1 - up_BK, torch.tensor(0.0, dtype=torch.float64),
        beta=0.1, desirable_weight=1.0, undesirable_weight=9.0, denominator=10,
    ).backward()  # fmt: skip
    assert logratio_BK.grad is not None
    assert logratio_BK.grad[:9].sum().item() == pytest.approx(-logratio_BK.grad[9].item(), rel=1e-12)
    assert logratio_BK.grad[0].item() < 0 < logratio_BK.grad[9].item()


def test_thumbs_are_told_apart_as_scikit_learn_counts_it() -> None:
    chance = random.Random(2)
    ratios = [round(chance.gauss(0, 1), 1) for _ in range(40)]  # some are equal
    thumbs = [(chance.randrange(3), chance.randrange(3)) for _ in ratios]
    found = thumb_numbers(torch.tensor(ratios), torch.tensor(thumbs, dtype=torch.float32))
    says = [(ratio, kind, thumb[1 - kind]) for ratio, thumb in zip(ratios, thumbs, strict=True) for kind in (0, 1)]
    scores, kinds, weights = zip(*[one for one in says if one[2]], strict=True)
    expected = roc_auc_score(kinds, scores, sample_weight=weights)
    assert found["thumb_accuracy"] == pytest.approx(expected, rel=1e-6)
    for name, place in (("up_logratio", 0), ("down_logratio", 1)):
        counts = [thumb[place] for thumb in thumbs]
        mean = math.fsum(r * n for r, n in zip(ratios, counts, strict=True)) / sum(counts)
        assert found[name] == pytest.approx(mean, rel=1e-6)


def test_what_no_thumb_says_anything_of_is_left_out() -> None:
    ratio_N = torch.tensor([0.5, -1.0])
    assert thumb_numbers(ratio_N, torch.zeros(2, 2)) == {}
    assert thumb_numbers(ratio_N, torch.tensor([[1.0, 0.0], [3.0, 0.0]])) == {"up_logratio": pytest.approx(-0.625)}
    assert thumb_numbers(torch.zeros(2), torch.eye(2))["thumb_accuracy"] == 0.5


def test_very_large_margins_stay_finite() -> None:
    preference_BKK = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    wrong_BK = torch.tensor([[-5e3, 5e3]])
    assert dpo_loss(wrong_BK, preference_BKK, beta=0.1, label_smoothing=0.1, denominator=1).item() == pytest.approx(900)
    assert simpo_loss(wrong_BK, preference_BKK, beta=0.1, margin=1.0, denominator=1).item() == pytest.approx(1001)
