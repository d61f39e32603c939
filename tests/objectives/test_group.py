"""Oracles: tables by hand, plain floats, and the exact gradient of a policy small enough to write down all its answers.

That policy has four tokens and at most three steps; token 0 ends an answer. Shapes: S answers that it can give, K
answers a group, R tokens.
"""

from __future__ import annotations

import itertools
import math
from statistics import fmean, pstdev

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sanbai.objectives.group import Advantage, Normalization, group_advantages, reinforce_loss, response_weights
from sanbai.objectives.ppo import clipped_policy_loss

Rewards = list[list[float]]


@pytest.mark.parametrize(
    ("kind", "rewards", "expected"),
    [
        ("grpo", [1.0, 0.0, 0.0, 1.0], [1.0, -1.0, -1.0, 1.0]),
        ("grpo", [0.0, 0.0, 0.0, 4.0], [-1 / math.sqrt(3)] * 3 + [math.sqrt(3)]),  # √(K-1), the largest there is
        ("dr_grpo", [1.0, 2.0, 6.0], [-2.0, -1.0, 3.0]),
        ("rloo", [1.0, 2.0, 6.0], [-3.0, -1.5, 4.5]),
        ("rloo", [1.0, 3.0], [-2.0, 2.0]),
    ],
)
def test_advantages_are_those_of_the_table(kind: Advantage, rewards: list[float], expected: list[float]) -> None:
    found = group_advantages(torch.tensor([rewards]), kind=kind, epsilon=0.0)
    assert found[0].tolist() == pytest.approx(expected, abs=1e-6)


def slow_advantages(rewards: list[float], kind: Advantage, epsilon: float) -> list[float]:
    match kind:
        case "grpo":
            return [(reward - fmean(rewards)) / (pstdev(rewards) + epsilon) for reward in rewards]
        case "dr_grpo":
            return [reward - fmean(rewards) for reward in rewards]
        case "rloo":
            return [
                reward - fmean(other for place, other in enumerate(rewards) if place != own)
                for own, reward in enumerate(rewards)
            ]


@settings(deadline=None, max_examples=50)
@given(
    st.integers(2, 6).flatmap(
        lambda num: st.lists(st.lists(st.floats(-10, 10), min_size=num, max_size=num), min_size=1, max_size=4)
    ),
    st.sampled_from(["grpo", "dr_grpo", "rloo"]),
)
def test_advantages_equal_plain_floats_prompt_by_prompt(rewards: Rewards, kind: Advantage) -> None:
    found_PK = group_advantages(torch.tensor(rewards, dtype=torch.float64), kind=kind)
    for found, of_prompt in zip(found_PK.tolist(), rewards, strict=True):
        assert found == pytest.approx(slow_advantages(of_prompt, kind, 1e-4), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "rloo"])
@pytest.mark.parametrize("reward", [0.1, -3.7, 1e6, 0.0])
def test_trap_19_constant_rewards_give_no_advantage_and_nothing_infinite(kind: Advantage, reward: float) -> None:
    assert group_advantages(torch.full((3, 7), reward), kind=kind).abs().max() == 0.0


def test_trap_19_one_answer_that_differs_and_rewards_that_hardly_do_stay_small() -> None:
    """A deviation of the other answers alone would be 0 here, and the advantage a million."""
    single = group_advantages(torch.tensor([[0.0, 0.0, 0.0, 1.0]]), kind="grpo")
    assert single.abs().max() < math.sqrt(3)
    rounding = group_advantages(torch.tensor([[1.0, 1.0 + 1e-7, 1.0, 1.0]]), kind="grpo")
    assert rounding.abs().max() < 0.01


@pytest.mark.parametrize("normalization", ["response", "token", "constant", "sum"])
def test_a_loss_in_weights_is_the_mean_that_its_name_says(normalization: Normalization) -> None:
    lengths = [5, 1, 3]
    loss_NR = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
    mask_NR = (torch.arange(5) < torch.tensor(lengths)[:, None]).float()
    weight_N = response_weights(torch.tensor(lengths), normalization=normalization, longest=8)
    found = (weight_N[:, None] * loss_NR * mask_NR).sum().item()
    rows = [row[:length] for row, length in zip(loss_NR.tolist(), lengths, strict=True)]
    expected = {
        "response": fmean(fmean(row) for row in rows),
        "token": fmean(loss for row in rows for loss in row),
        "constant": fmean(sum(row) / 8 for row in rows),
        "sum": fmean(sum(row) for row in rows),
    }
    assert found == pytest.approx(expected[normalization], rel=1e-5)


def test_per_response_a_long_answer_moves_each_of_its_tokens_less_for_the_same_reward() -> None:
    """GRPO's length bias as its formula says it: by the ratio of the lengths."""
    length_N = torch.tensor([2, 10])
    by_response = response_weights(length_N, normalization="response", longest=10)
    assert (by_response[0] / by_response[1]).item() == pytest.approx(5.0)
    for normalization in ("token", "constant", "sum"):
        weight_N = response_weights(length_N, normalization=normalization, longest=10)
        assert weight_N[0] == weight_N[1]


def test_grpo_gives_a_prompt_whose_answers_hardly_differ_the_weight_of_one_where_they_do() -> None:
    reward_PK = torch.tensor([[0.0, 1.0, 0.5], [0.0, 10.0, 5.0]])
    standard_PK, centred_PK = (group_advantages(reward_PK, kind=kind) for kind in ("grpo", "dr_grpo"))
    torch.testing.assert_close(standard_PK[0], standard_PK[1], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(10 * centred_PK[0], centred_PK[1])


def test_reinforce_is_the_sum_over_answers_whatever_the_padding_holds() -> None:
    logprob_NR = torch.tensor([[-1.0, -2.0], [-3.0, math.nan]], requires_grad=True)
    advantage_NR, mask_NR = torch.tensor([[2.0], [-1.0]]).expand(2, 2), torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    loss = reinforce_loss(logprob_NR, advantage_NR, mask_NR)
    assert loss.item() == pytest.approx(-(2.0 * -3.0 + -1.0 * -3.0))
    loss.backward()  # type: ignore[no-untyped-call]
    assert logprob_NR.grad is not None
    assert logprob_NR.grad.tolist() == [[-2.0, -2.0], [1.0, 0.0]]


class TinyPolicy:
    """A policy whose answers can all be written down, and what each scores."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(4)
        self.logits = torch.randn(21, 4, dtype=torch.float64, generator=generator).requires_grad_()
        """By what was said before: nothing, one of four tokens, one of sixteen pairs."""
        pairs = list(itertools.product((1, 2, 3), range(4)))
        self.answers = [
            (0,),
            *((first, 0) for first in (1, 2, 3)),
            *((*pair, last) for pair in pairs if pair[1] for last in range(4)),
        ]
        self.length_S = torch.tensor([len(answer) for answer in self.answers])
        self.mask_SR = (torch.arange(3) < self.length_S[:, None]).double()
        self.reward_S = self.length_S + torch.randn(len(self.answers), dtype=torch.float64, generator=generator)

    def logprobs(self) -> Tensor:
        """Return logprob_SR, 0 on padding; carries the gradient."""
        logprob_CV = torch.log_softmax(self.logits, -1)
        rows = []
        for answer in self.answers:
            contexts = [0, 1 + answer[0], 5 + 4 * answer[0] + (answer[1] if len(answer) > 1 else 0)]
            steps = [logprob_CV[context, token] for context, token in zip(contexts, answer, strict=False)]
            rows.append(torch.stack([*steps, *[torch.zeros((), dtype=torch.float64)] * (3 - len(steps))]))
        return torch.stack(rows)

    def gradient(self, objective: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(objective, self.logits)
        return gradient

    def exact(self) -> Tensor:
        """Return the gradient of the expected reward."""
        return self.gradient((self.logprobs().sum(1).exp() * self.reward_S).sum())


def expected_step(policy: TinyPolicy, kind: Advantage, normalization: Normalization) -> Tensor:
    """Return the mean, over all groups of three answers that the policy can give, of what the loss moves along."""
    group_GK = torch.cartesian_prod(*[torch.arange(len(policy.answers))] * 3)
    logprob_SR = policy.logprobs()
    chance_G = logprob_SR.sum(1).exp().detach()[group_GK].prod(1)
    advantage_GK = group_advantages(policy.reward_S[group_GK], kind=kind)
    weight_of = {
        lengths: response_weights(torch.tensor(lengths), normalization=normalization, longest=3).double()
        for lengths in itertools.product((1, 2, 3), repeat=3)
    }
    weight_GK = torch.stack([weight_of[lengths] for lengths in map(tuple, policy.length_S[group_GK].tolist())])
    rows_N = group_GK.flatten()
    pushed_N1 = (chance_G[:, None] * weight_GK * advantage_GK).view(-1, 1)
    loss = reinforce_loss(logprob_SR[rows_N], pushed_N1, policy.mask_SR[rows_N])
    return policy.gradient(-loss)


@pytest.fixture(scope="module")
def policy() -> TinyPolicy:
    policy = TinyPolicy()
    assert len(policy.answers) == 40
    assert policy.logprobs().sum(1).exp().sum().item() == pytest.approx(1.0)
    return policy


def test_rloos_expected_step_is_the_gradient_of_the_expected_reward(policy: TinyPolicy) -> None:
    found = expected_step(policy, "rloo", "sum")
    torch.testing.assert_close(found, policy.exact(), rtol=1e-6, atol=1e-8)


def test_dr_grpos_expected_step_is_the_gradient_but_for_two_constants(policy: TinyPolicy) -> None:
    found = expected_step(policy, "dr_grpo", "constant")
    torch.testing.assert_close(found, policy.exact() * (2 / 3) / 3, rtol=1e-6, atol=1e-8)


def test_grpos_expected_step_has_the_biases_of_its_formula_and_another_direction(policy: TinyPolicy) -> None:
    """Σ over groups of P(group) 1/K Σ_i (r_i - mean) / (std + ε) / |y_i| ∇ log π(y_i), in plain floats."""
    rewards, lengths = policy.reward_S.tolist(), policy.length_S.tolist()
    chances = policy.logprobs().sum(1).exp().tolist()
    push = [0.0] * len(rewards)
    for group in itertools.product(range(len(rewards)), repeat=3):
        chance = math.prod(chances[answer] for answer in group)
        scores = [rewards[answer] for answer in group]
        mean = sum(scores) / 3
        deviation = math.sqrt(sum((score - mean) ** 2 for score in scores) / 3)
        for answer in group:
            push[answer] += chance * (rewards[answer] - mean) / (deviation + 1e-4) / 3 / lengths[answer]
    by_formula = policy.gradient((policy.logprobs().sum(1) * torch.tensor(push)).sum())
    found = expected_step(policy, "grpo", "response")
    torch.testing.assert_close(found, by_formula, rtol=1e-6, atol=1e-8)

    def cosine(first: Tensor, second: Tensor) -> float:
        return torch.cosine_similarity(first.flatten(), second.flatten(), dim=0).item()

    assert cosine(found, policy.exact()) < 0.98
    assert cosine(expected_step(policy, "dr_grpo", "response"), policy.exact()) < 0.99  # the length's alone
    assert cosine(expected_step(policy, "grpo", "constant"), policy.exact()) < 0.9999  # the deviation's alone


def test_the_clipped_loss_of_weighted_advantages_moves_as_reinforce_does_while_the_ratio_is_one(
    policy: TinyPolicy,
) -> None:
    """A weight above 0 may go into the advantage: min(r w A, clip(r) w A) = w min(r A, clip(r) A)."""
    weight_S = response_weights(policy.length_S, normalization="response", longest=1)
    advantage_S1 = ((policy.reward_S - policy.reward_S.mean()) * weight_S)[:, None]
    logprob_SR, again_SR = policy.logprobs(), policy.logprobs()
    clipped = clipped_policy_loss(again_SR, logprob_SR.detach(), advantage_S1, policy.mask_SR, clip=0.2, denominator=1)
    plain = reinforce_loss(logprob_SR, advantage_S1, policy.mask_SR)
    torch.testing.assert_close(policy.gradient(clipped), policy.gradient(plain), rtol=1e-9, atol=1e-12)
