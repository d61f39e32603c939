"""Oracle: the O(T²) definition of GAE as a sum of discounted errors, over each row's own tokens, in plain floats."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sanbai.objectives.advantage import generalized_advantages, last_token, token_rewards


def slow_advantages(
    reward: list[float], value: list[float], bootstrap: float, discount: float, gae_lambda: float
) -> list[float]:
    following = [*value[1:], bootstrap]
    error = [r + discount * n - v for r, n, v in zip(reward, following, value, strict=True)]
    return [sum((discount * gae_lambda) ** (k - t) * error[k] for k in range(t, len(error))) for t in range(len(error))]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 1))
def test_trap_16_advantages_equal_the_slow_sum_over_random_masks_with_gaps(
    seed: int, discount: float, gae_lambda: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    reward_BT, value_BT = (torch.randn(3, 9, dtype=torch.float64, generator=generator) for _ in range(2))
    mask_BT = (torch.rand(3, 9, generator=generator) < 0.6).double()
    bootstrap_B = torch.randn(3, dtype=torch.float64, generator=generator)
    hidden_BT = mask_BT == 0
    found_BT = generalized_advantages(
        reward_BT.masked_fill(hidden_BT, float("nan")),
        value_BT.masked_fill(hidden_BT, 1e9),
        mask_BT,
        bootstrap_B,
        discount=discount,
        gae_lambda=gae_lambda,
    )
    for row in range(3):
        places = mask_BT[row].nonzero().flatten().tolist()
        expected = slow_advantages(
            reward_BT[row, places].tolist(),
            value_BT[row, places].tolist(),
            bootstrap_B[row].item(),
            discount,
            gae_lambda,
        )
        assert found_BT[row, places].tolist() == pytest.approx(expected, abs=1e-9)
        assert found_BT[row][hidden_BT[row]].abs().sum() == 0.0


def test_with_lambda_one_advantages_are_returns_minus_values() -> None:
    reward_BT, value_BT = torch.randn(2, 6), torch.randn(2, 6)
    found_BT = generalized_advantages(
        reward_BT, value_BT, torch.ones(2, 6), torch.zeros(2), discount=1.0, gae_lambda=1.0
    )
    returns_BT = reward_BT.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(found_BT, returns_BT - value_BT)


def test_trap_01_the_score_lands_on_the_last_response_token_for_every_length() -> None:
    lengths = list(range(1, 9))
    mask_BT = (torch.arange(8) < torch.tensor(lengths)[:, None]).float()
    score_B = torch.arange(1.0, 9.0)
    reward_BT = token_rewards(score_B, torch.zeros(8, 8), mask_BT, kl_coef=0.5)
    for row, length in enumerate(lengths):
        assert reward_BT[row].nonzero().flatten().tolist() == [length - 1]
        assert reward_BT[row, length - 1] == score_B[row]
    assert last_token(mask_BT).tolist() == [length - 1 for length in lengths]


def test_trap_01_without_a_critic_and_with_lambda_one_every_advantage_is_the_return() -> None:
    mask_BT = (torch.arange(6) < torch.tensor([1, 3, 6])[:, None]).float()
    score_B, kl_BT = torch.tensor([2.0, -1.0, 0.5]), torch.rand(3, 6)
    reward_BT = token_rewards(score_B, kl_BT, mask_BT, kl_coef=0.1)
    found_BT = generalized_advantages(
        reward_BT, torch.zeros(3, 6), mask_BT, torch.zeros(3), discount=1.0, gae_lambda=1.0
    )
    for row, length in enumerate([1, 3, 6]):
        for t in range(length):
            expected = score_B[row].item() - 0.1 * kl_BT[row, t:length].sum().item()
            assert found_BT[row, t].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kl_coef", [0.0, 0.02, 2.0])
def test_trap_09_a_responses_rewards_sum_to_score_minus_beta_kl(kl_coef: float) -> None:
    mask_BT = (torch.arange(7) < torch.tensor([7, 2, 4])[:, None]).float()
    kl_BT = torch.randn(3, 7).masked_fill(mask_BT == 0, float("nan"))
    score_B = torch.tensor([1.0, 2.0, 3.0])
    total_B = token_rewards(score_B, kl_BT, mask_BT, kl_coef=kl_coef).sum(1)
    torch.testing.assert_close(total_B, score_B - kl_coef * kl_BT.nan_to_num().sum(1))


def test_trap_04_only_a_cut_response_expects_more_even_when_the_longest_ended_by_itself() -> None:
    mask_BT = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
    value_BT = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 7.0, 7.0]])
    bootstrap_B = torch.tensor([0.0, 3.0])  # the longest ended, the short one was cut by its own limit
    found_BT = generalized_advantages(torch.zeros(2, 4), value_BT, mask_BT, bootstrap_B, discount=1.0, gae_lambda=1.0)
    assert found_BT.tolist() == [[0.0] * 4, [3.0, 3.0, 0.0, 0.0]]
