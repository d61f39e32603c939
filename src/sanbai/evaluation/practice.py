"""What practice brought where no program can judge an answer: rewards of two judges against distance, on new prompts.

The reward that a policy was trained on rises if anything was learned, and proves nothing; the second judge was taught
by other comparisons, and its mean on prompts that nothing was stopped or trained by is the honest figure. It is still a
model: where it is hardly better than chance, so is what it says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from sanbai.data.prompts import Prompt
from sanbai.data.rankings import Ranking
from sanbai.evaluation.answers import Contestant
from sanbai.evaluation.recipe import EvaluateRecipe
from sanbai.evaluation.reward_accuracy import StrictPair, margins, reward_accuracy, strict_pairs
from sanbai.evaluation.statistics import bootstrap_mean, paired_difference
from sanbai.foundation.device import Compute
from sanbai.foundation.seeds import derive_seed
from sanbai.generation.answering import Completion, generate
from sanbai.text.chat_markup import Message
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.reward_model import RewardModel, encode_answer, score_rows


class TokenScore(Protocol):
    """A judge of token ids: usually a `RewardModel`."""

    def __call__(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> Sequence[float]:
        """Return one reward a response."""


def answer(
    contestant: Contestant,
    prompts: Sequence[Prompt],
    recipe: EvaluateRecipe,
    *,
    seed: int,
    on_batch: Callable[[int], None] | None = None,
) -> list[Completion]:
    """Answer each prompt once; every contestant gets the same random numbers for the same prompt."""
    return generate(
        contestant.model,
        [contestant.encode(prompt.messages) for prompt in prompts],
        recipe.sampling,
        seeds=[derive_seed(seed, "answer", prompt.id) for prompt in prompts],
        stop_ids=set(contestant.stop_ids),
        batch_size=recipe.batch_size,
        on_batch=on_batch,
    )


def score_answers(
    prompts: Sequence[Sequence[int]], completions: Sequence[Completion], *, reward: TokenScore, judge: TokenScore
) -> dict[str, list[float]]:
    """Return figure -> one number a prompt: both rewards, length in tokens, whether the answer ended by itself."""
    responses = [completion.tokens for completion in completions]
    return {
        "judge_reward": list(judge(prompts, responses)),
        "reward": list(reward(prompts, responses)),
        "length": [float(len(response)) for response in responses],
        "finished": [float(completion.finish_reason == "stop") for completion in completions],
    }


def practice_record(
    scores: Mapping[str, Mapping[str, Sequence[float]]], *, reference: str, seed: int, draws: int
) -> dict[str, Any]:
    """Return `practice` of `evaluation.json`: each figure's mean, and its difference to the reference by prompt.

    Args:
        scores: model -> what `score_answers` returned, prompts in one order.
        reference: the model that practice began from.
        seed: of the bootstrap by prompt.
        draws: resamples.
    """
    return {
        model: {
            **{figure: bootstrap_mean(row, seed=seed, draws=draws).to_json() for figure, row in figures.items()},
            **{
                f"{figure}_gain": paired_difference(
                    figures[figure], scores[reference][figure], seed=seed, draws=draws
                ).to_json()
                for figure in ("judge_reward", "reward")
                if model != reference
            },
        }
        for model, figures in scores.items()
    }


def accuracy_record(
    model: RewardModel,
    rankings: Sequence[Ranking],
    tokenizer: Tokenizer,
    compute: Compute,
    *,
    max_prompt_tokens: int,
    max_response_tokens: int,
    seed: int,
    draws: int,
) -> dict[str, Any]:
    """Return a reward model's accuracy on held-out people's pairs, by labeler, beside "the longer answer wins".

    It reads as it was trained: longer prompts lose their beginning, pairs with longer answers are left out and counted.

    Args:
        model: the reward model or the second judge.
        rankings: held out; their labeler names the source.
        tokenizer: the model's.
        compute: precision and device.
        max_prompt_tokens: as in training.
        max_response_tokens: as in training.
        seed: of the bootstrap by prompt.
        draws: resamples.

    Raises:
        DataError: no pair is left.
    """

    def is_short(pair: StrictPair) -> bool:
        return all(len(tokenizer.encode(text)) <= max_response_tokens for text in (pair.chosen, pair.rejected))

    def score(answers: Sequence[tuple[Sequence[Message], str]]) -> list[float]:
        rows = [encode_answer(tokenizer, *pair, max_prompt_tokens=max_prompt_tokens) for pair in answers]
        return score_rows(model.model, rows, compute)

    pairs = strict_pairs([_with_source(ranking) for ranking in rankings])
    short = [pair for pair in pairs if is_short(pair)]
    found = reward_accuracy(short, margins(short, score), seed=seed, draws=draws).to_json()
    by_source = found.pop("by_kind")
    return {**found, "by_source": by_source, "num_left_out": len(pairs) - len(short)}


def _with_source(ranking: Ranking) -> Ranking:
    """Return the ranking with its labeler in the place of its kind, by which accuracies are given."""
    return Ranking(
        ranking.id, ranking.messages, ranking.responses, ranking.buckets, ranking.labeler, kind=ranking.labeler
    )
