"""Answers as a reward model sees them, against its own scores."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from tests.training.conftest import NAMES, TRADES

from sanbai.data.rankings import Ranking
from sanbai.foundation.device import Compute
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.label_choice import head_covariance
from sanbai.training.reward_model import Calibration, RewardModel
from sanbai.training.reward_uncertainty import posterior_covariance, read_candidates


@pytest.fixture
def reward(model: LanguageModel, compute: Compute) -> RewardModel:
    scalar = ScalarModel.from_language_model(model, torch.Generator().manual_seed(3))
    return RewardModel(scalar, Calibration(1, 0.0, 0.0, 1.0), compute)


def asked(num: int) -> list[tuple[list[dict[str, str]], tuple[str, ...]]]:
    return [
        (
            [{"role": "user", "content": f"what is {NAMES[n % 5]}?"}],
            tuple(f"a {trade}" for trade in TRADES[: 2 + n % 4]),
        )
        for n in range(num)
    ]


def test_rewards_are_the_model_s_own_up_to_its_zero(reward: RewardModel, tokenizer: Tokenizer) -> None:
    questions = asked(7)
    found = read_candidates(reward, tokenizer, questions)
    assert [len(each.reward_K) for each in found] == [len(answers) for _, answers in questions]
    for candidate, (messages, answers) in zip(found, questions, strict=True):
        scores = reward.score_answers(tokenizer, [(messages, answer) for answer in answers])
        np.testing.assert_allclose(
            candidate.reward_K - candidate.reward_K[0], np.array(scores) - scores[0], rtol=1e-3, atol=1e-5
        )
    assert read_candidates(reward, tokenizer, []) == []


def test_the_covariance_is_made_of_the_strict_pairs_alone(reward: RewardModel, tokenizer: Tokenizer) -> None:
    ((messages, answers), *_) = asked(4)[3:]
    tied = Ranking("r", tuple(messages), answers, ((3,), (0, 1, 2), (4,)), "ada")
    none = Ranking("s", tuple(messages), answers, (tuple(range(5)),), "ada")
    (seen,) = read_candidates(reward, tokenizer, [(messages, answers)])
    pairs = [(i, j) for i, j in combinations(range(5), 2) if (i, j) not in {(0, 1), (0, 2), (1, 2)}]
    expected = head_covariance(
        np.array([seen.feature_KD[i] - seen.feature_KD[j] for i, j in pairs]),
        np.array([seen.reward_K[i] - seen.reward_K[j] for i, j in pairs]),
        prior_variance=1 / (reward.model.config.width + 1),
    )
    np.testing.assert_allclose(posterior_covariance(reward, tokenizer, [tied, none]), expected, atol=1e-9)
    prior = np.eye(reward.model.config.width) / (reward.model.config.width + 1)
    np.testing.assert_allclose(posterior_covariance(reward, tokenizer, [none]), prior)
