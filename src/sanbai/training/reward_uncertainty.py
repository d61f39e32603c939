"""What a reward model's rankings leave open, as `label_choice` wants it: answers as vectors, and the head's covariance.

Shapes: D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sanbai.data.rankings import Ranking
from sanbai.text.chat_markup import Message
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.label_choice import Array, Candidate, head_covariance
from sanbai.training.reward_model import RewardModel

#: Rankings that the head's covariance is made of; more cost time and change the order of gains no more.
NUM_RANKINGS = 2000


def read_candidates(
    reward: RewardModel, tokenizer: Tokenizer, asked: Sequence[tuple[Sequence[Message], Sequence[str]]]
) -> list[Candidate]:
    """Return prompts with their answers as the reward model sees them.

    Args:
        reward: the model to be taught.
        tokenizer: its own.
        asked: messages and answers of each prompt.
    """
    if not asked:
        return []
    feature_ND = reward.read_answers(tokenizer, asked).double().cpu().numpy()
    reward_N = feature_ND @ reward.model.head.weight.detach().double().cpu().numpy()[0]
    ends = np.cumsum([len(answers) for _, answers in asked])[:-1]
    return [
        Candidate(feature_KD, reward_K)
        for feature_KD, reward_K in zip(np.split(feature_ND, ends), np.split(reward_N, ends), strict=True)
    ]


def posterior_covariance(reward: RewardModel, tokenizer: Tokenizer, rankings: Sequence[Ranking]) -> Array:
    """Return the covariance of the head, given the strict pairs of rankings; the prior is the head's initial spread.

    Args:
        reward: the model that was taught by them.
        tokenizer: its own.
        rankings: the first `NUM_RANKINGS` of them are read.
    """
    read = rankings[:NUM_RANKINGS]
    width = reward.model.config.width
    differences, margins = [np.zeros((0, width))], [np.zeros(0)]
    seen = read_candidates(reward, tokenizer, [(one.messages, one.responses) for one in read])
    for one, candidate in zip(read, seen, strict=True):
        if pairs := one.pairs():
            better, worse = np.array(pairs).T
            differences.append(candidate.feature_KD[better] - candidate.feature_KD[worse])
            margins.append(candidate.reward_K[better] - candidate.reward_K[worse])
    return head_covariance(np.concatenate(differences), np.concatenate(margins), prior_variance=1 / (width + 1))
