"""Oracle: a loop over labelers, buckets and pairs in plain Python floats."""

import itertools
import math
import random

import pytest
import torch

from sanbai.objectives.reward import pair_accuracy, ranking_loss

#: Answers' buckets, best first; several labelers may rank one prompt.
PROMPTS = [
    [[[2], [0, 3], [1]]],
    [[[0], [1], [2], [3], [4], [5], [6], [7], [8]]],
    [[[1], [0, 2]], [[0], [1], [2]]],
    [[[0, 1, 2, 3]]],
]
RANDOM = random.Random(0)
REWARDS = [[RANDOM.gauss(0, 2) for _ in range(9)] for _ in range(4)]


def pairs(labelers: list[list[list[int]]]) -> list[tuple[int, int]]:
    return [
        (better, worse)
        for buckets in labelers
        for above, below in itertools.combinations(buckets, 2)
        for better in above
        for worse in below
    ]


def brute_force(rewards: list[list[float]]) -> float:
    prompt_losses = []
    for reward, labelers in zip(rewards, PROMPTS, strict=True):
        losses = [math.log1p(math.exp(-(reward[i] - reward[j]))) for i, j in pairs(labelers)]
        if losses:
            prompt_losses.append(math.fsum(losses) / len(losses))
    return math.fsum(prompt_losses) / len(prompt_losses)


def preferences() -> torch.Tensor:
    preference_BKK = torch.zeros(4, 9, 9, dtype=torch.float64)
    for row, labelers in enumerate(PROMPTS):
        for better, worse in pairs(labelers):
            preference_BKK[row, better, worse] += 1
    return preference_BKK


def test_trap_20_the_loss_is_a_mean_over_pairs_then_over_prompts_with_a_pair() -> None:
    found = ranking_loss(torch.tensor(REWARDS, dtype=torch.float64), preferences(), denominator=3)
    assert found.item() == pytest.approx(brute_force(REWARDS), rel=1e-12)


def test_trap_20_ties_pull_nowhere_and_a_nine_way_prompt_weighs_as_much_as_a_four_way_one() -> None:
    reward_BK = torch.zeros(4, 9, dtype=torch.float64, requires_grad=True)
    ranking_loss(reward_BK, preferences(), denominator=3).backward()
    assert reward_BK.grad is not None
    assert reward_BK.grad[3].abs().max() == 0.0  # all tied
    assert reward_BK.grad[0, 0] == reward_BK.grad[0, 3]  # tied with each other
    # At equal rewards every pair pulls by 1/2 over its prompt's count: prompt sums of the positive pulls are equal.
    pulled_up = [math.fsum(-0.5 / len(pairs(labelers)) for _ in pairs(labelers)) for labelers in PROMPTS[:3]]
    assert pulled_up == pytest.approx([-0.5] * 3)


def test_trap_20_the_gradient_is_the_sum_of_the_pairs_gradients() -> None:
    reward_BK = torch.tensor(REWARDS, dtype=torch.float64, requires_grad=True)
    ranking_loss(reward_BK, preferences(), denominator=3).backward()
    expected = [[0.0] * 9 for _ in range(4)]
    for row, labelers in enumerate(PROMPTS):
        for better, worse in pairs(labelers):
            slope = -1 / (1 + math.exp(REWARDS[row][better] - REWARDS[row][worse])) / len(pairs(labelers)) / 3
            expected[row][better] += slope
            expected[row][worse] -= slope
    assert reward_BK.grad is not None
    for row in range(4):
        assert reward_BK.grad[row].tolist() == pytest.approx(expected[row], abs=1e-12)


def test_trap_20_reordering_the_answers_changes_nothing() -> None:
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    reward_BK, preference_BKK = torch.tensor(REWARDS, dtype=torch.float64), preferences()
    plain = ranking_loss(reward_BK, preference_BKK, denominator=3)
    mixed = ranking_loss(reward_BK[:, order], preference_BKK[:, order][:, :, order], denominator=3)
    assert mixed.item() == pytest.approx(plain.item(), rel=1e-12)


def test_a_constant_added_to_all_rewards_changes_nothing() -> None:
    reward_BK = torch.tensor(REWARDS, dtype=torch.float64)
    shifted = ranking_loss(reward_BK + 5, preferences(), denominator=3)
    assert shifted.item() == pytest.approx(brute_force(REWARDS), rel=1e-12)


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    reward_BK, preference_BKK = torch.tensor(REWARDS, dtype=torch.float64), preferences()
    parts = sum(
        ranking_loss(reward_BK[part], preference_BKK[part], denominator=3).item() for part in (slice(0, 1), slice(1, 4))
    )
    assert parts == pytest.approx(brute_force(REWARDS), rel=1e-12)


def test_very_large_margins_stay_finite() -> None:
    preference_BKK = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    assert ranking_loss(torch.tensor([[-500.0, 500.0]]), preference_BKK, denominator=1).item() == pytest.approx(1000)
    assert ranking_loss(torch.tensor([[500.0, -500.0]]), preference_BKK, denominator=1).item() == 0.0


def test_accuracy_counts_pairs_and_equal_rewards_by_half() -> None:
    right = [
        1.0 if REWARDS[row][i] > REWARDS[row][j] else 0.0
        for row, labelers in enumerate(PROMPTS)
        for i, j in pairs(labelers)
    ]
    found = pair_accuracy(torch.tensor(REWARDS, dtype=torch.float64), preferences())
    assert found.item() == pytest.approx(sum(right) / len(right))
    assert pair_accuracy(torch.zeros(4, 9, dtype=torch.float64), preferences()).item() == 0.5
