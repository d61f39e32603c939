"""Scores here are known functions of the tokens, so that which candidate is best can be told by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from sanbai.foundation.device import Compute
from sanbai.foundation.seeds import torch_generator
from sanbai.generation.answering import Completion, FinishReason
from sanbai.generation.engine import ContinuousEngine
from sanbai.generation.request import Request
from sanbai.generation.sampling import Sampling
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.text.reserved import ReservedIds
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.candidates import Candidates, best_answer, draw_candidates
from sanbai.training.reward_model import Calibration, RewardModel
from sanbai.training.rollouts import Rollouts, Score

PROMPTS = [[0, 3, 41, 6, 4], [0, 3, 42, 6, 4, 7], [0, 3, 43, 6, 4]]


def draw(
    model: LanguageModel,
    compute: Compute,
    tokenizer: Tokenizer,
    score: Score | None = None,
    *,
    max_new_tokens: int = 4,
    **named: int,
) -> Candidates:
    def total(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        return [float(sum(response)) for response in responses]

    settings = {"num_candidates": 6, "batch_size": 64, "seed": 3, **named}
    return draw_candidates(
        model,
        PROMPTS,
        score or total,
        Sampling(max_new_tokens=max_new_tokens),
        compute,
        tokenizer,
        **settings,
    )


def test_candidates_of_a_prompt_lie_side_by_side_and_each_has_its_own_score(
    model: LanguageModel, compute: Compute, tokenizer: Tokenizer
) -> None:
    found = draw(model, compute, tokenizer)
    assert [list(prompt) for prompt in found.rollouts.prompts] == [prompt for prompt in PROMPTS for _ in range(6)]
    assert found.score_PK.flatten().tolist() == [sum(response) for response in found.rollouts.responses]
    assert len({tuple(response) for response in found.rollouts.responses[:6]}) > 1


def test_a_prompt_is_read_once_for_all_its_answers(
    model: LanguageModel, compute: Compute, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[int]] = []
    submit = ContinuousEngine.submit

    def counted(self: ContinuousEngine, request: Request) -> int:
        read.append(list(request.prompt))
        return submit(self, request)

    monkeypatch.setattr(ContinuousEngine, "submit", counted)
    draw(model, compute, tokenizer)
    assert sorted(read) == sorted(map(list, PROMPTS))


def test_neither_the_batch_nor_further_candidates_change_an_answer(
    model: LanguageModel, compute: Compute, tokenizer: Tokenizer
) -> None:
    plain = draw(model, compute, tokenizer).rollouts.responses
    assert draw(model, compute, tokenizer, batch_size=5).rollouts.responses == plain
    fewer = draw(model, compute, tokenizer, num_candidates=2).rollouts.responses
    assert fewer == [plain[6 * prompt + number] for prompt in range(3) for number in range(2)]
    assert draw(model, compute, tokenizer, seed=4).rollouts.responses != plain


def test_equal_answers_to_a_prompt_are_scored_once(
    model: LanguageModel, compute: Compute, tokenizer: Tokenizer
) -> None:
    asked: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def counting(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        asked.extend(zip(map(tuple, prompts), map(tuple, responses), strict=True))
        return [float(number) for number in range(len(responses))]

    found = draw(model, compute, tokenizer, counting, num_candidates=40, max_new_tokens=1)
    assert len(asked) == len(set(asked)) < 120
    rows = zip(map(tuple, found.rollouts.prompts), map(tuple, found.rollouts.responses), strict=True)
    assert found.score_PK.flatten().tolist() == [float(asked.index(row)) for row in rows]


def test_a_reward_model_scores_candidates_as_it_scores_them_alone(
    model: LanguageModel, compute: Compute, tokenizer: Tokenizer
) -> None:
    scalar = ScalarModel.from_language_model(model, torch_generator(2, "head"))
    reward = RewardModel(scalar, Calibration(1, 0.0, 0.0, 1.0), compute)
    found = draw(model, compute, tokenizer, reward)
    alone = [
        reward([prompt], [response])[0]
        for prompt, response in zip(found.rollouts.prompts, found.rollouts.responses, strict=True)
    ]
    assert found.score_PK.flatten().tolist() == pytest.approx(alone, abs=1e-5)


def candidates(scores: list[list[float]], reasons: list[list[FinishReason]]) -> Candidates:
    flat = [reason for row in reasons for reason in row]
    completions = [Completion([9], [0.0], [0.0], reason) for reason in flat]
    return Candidates(Rollouts([[1]] * len(flat), completions), torch.tensor(scores))


def test_the_best_is_the_highest_finished_answer_and_the_first_among_equals() -> None:
    found = candidates(
        [[0.0, 2.0, 1.0], [5.0, 5.0, 4.0], [9.0, -3.0, -2.0], [1.0, 2.0, 3.0]],
        [["stop"] * 3, ["stop"] * 3, ["length", "stop", "stop"], ["length"] * 3],
    )
    assert found.best_rows() == [1, 3, 8]
    assert found.finished().tolist()[2:] == [[False, True, True], [False] * 3]


@pytest.mark.parametrize("ends", [range(200, 300), range(0)])
def test_the_best_answer_to_one_prompt_is_that_of_its_candidates_and_a_cut_one_only_if_all_are(
    model: LanguageModel,
    compute: Compute,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
    ends: range,
) -> None:
    monkeypatch.setattr(ReservedIds, "ends", lambda self: frozenset(ends))

    def total(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        return [float(sum(response)) for response in responses]

    common = (total, Sampling(max_new_tokens=4), compute, tokenizer)
    drawn = draw_candidates(model, PROMPTS[:1], *common, num_candidates=9, batch_size=9, seed=3)
    answer, score = best_answer(model, PROMPTS[0], *common, num_candidates=9, seed=3)
    finished = [each for each in drawn.rollouts.completions if each.tokens[-1] in ends]
    assert bool(finished) is bool(ends)
    assert answer == max(finished or drawn.rollouts.completions, key=lambda each: sum(each.tokens))
    assert score == sum(answer.tokens)
