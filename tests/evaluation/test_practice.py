"""Two judges' words on new answers: paired by prompt, read as in training."""

from __future__ import annotations

import pytest
from tests.evaluation.conftest import tiny_model

from sanbai.data.prompts import Prompt
from sanbai.data.rankings import Ranking
from sanbai.evaluation.answers import chat_contestant
from sanbai.evaluation.practice import accuracy_record, answer, practice_record, score_answers
from sanbai.evaluation.recipe import EvaluateRecipe
from sanbai.foundation.device import Compute
from sanbai.foundation.seeds import torch_generator
from sanbai.generation.answering import Completion
from sanbai.generation.sampling import Sampling
from sanbai.model.heads import ScalarModel
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.reward_model import Calibration, RewardModel, encode_answer

FLOAT = Compute(precision="float32")


def reward_model(tokenizer: Tokenizer) -> RewardModel:
    model = tiny_model(tokenizer.vocab_size, max_positions=128)
    scalar = ScalarModel.from_language_model(model, torch_generator(0, "head"))
    return RewardModel(scalar, Calibration(1, 0.0, 0.0, 1.0), FLOAT)


def compared(number: int, *, chosen: str, rejected: str, labeler: str = "people") -> Ranking:
    messages = ({"role": "user", "content": f"Question {number}: " + "how many apples? " * number},)
    return Ranking(str(number), messages, (rejected, chosen), ((1,), (0,)), labeler)


def test_accuracy_is_that_of_scoring_every_answer_alone(tokenizer: Tokenizer) -> None:
    model = reward_model(tokenizer)
    words = ["milk", "the cow", "50 apples", "no", "her son", "painting"]
    rankings = [
        compared(n, chosen=words[n % 6], rejected=words[(n * n + 1) % 6], labeler=("x", "y")[n % 2]) for n in range(12)
    ]
    rankings = [each for each in rankings if len(set(each.responses)) == 2]
    too_long = compared(40, chosen="milk " * 30, rejected="no")
    found = accuracy_record(
        model,
        [*rankings, too_long],
        tokenizer,
        FLOAT,
        max_prompt_tokens=20,
        max_response_tokens=16,
        seed=1,
        draws=200,
    )

    def alone(ranking: Ranking, text: str) -> float:
        row = encode_answer(tokenizer, ranking.messages, text, max_prompt_tokens=20)
        return model([row[:-1]], [row[-1:]])[0]

    right = {each.id: alone(each, each.responses[1]) > alone(each, each.responses[0]) for each in rankings}
    assert found["accuracy"]["mean"] == pytest.approx(sum(right.values()) / len(right))
    of_x = [right[each.id] for each in rankings if each.labeler == "x"]
    assert found["by_source"]["x"]["mean"] == pytest.approx(sum(of_x) / len(of_x))
    longer = [len(each.responses[1]) > len(each.responses[0]) for each in rankings]
    ties = [len(each.responses[1]) == len(each.responses[0]) for each in rankings]
    assert found["longer_wins"]["mean"] == pytest.approx((sum(longer) + 0.5 * sum(ties)) / len(rankings))
    assert (found["num_pairs"], found["num_left_out"]) == (len(rankings), 1)


def test_gains_are_differences_prompt_by_prompt_and_the_reference_has_none() -> None:
    scores = {
        "supervised": {"judge_reward": [0.0, 1.0, 5.0], "reward": [1.0, 1.0, 1.0]},
        "ppo": {"judge_reward": [0.5, 1.5, 5.5], "reward": [2.0, 0.0, 1.0]},
    }
    record = practice_record(scores, reference="supervised", seed=1, draws=500)
    assert set(record["supervised"]) == {"judge_reward", "reward"}
    gain = record["ppo"]["judge_reward_gain"]
    # Every prompt gained the same: paired, nothing is uncertain, however much the prompts differ.
    assert (gain["mean"], gain["low"], gain["high"], gain["n"]) == (0.5, 0.5, 0.5, 3)
    assert record["ppo"]["judge_reward"]["mean"] == pytest.approx(2.5)
    assert record["ppo"]["reward_gain"]["low"] < 0 < record["ppo"]["reward_gain"]["high"]


def test_answers_depend_on_their_prompt_alone(tokenizer: Tokenizer) -> None:
    model = tiny_model(tokenizer.vocab_size)
    contestant = chat_contestant("ppo", model, tokenizer, max_prompt_tokens=40)
    prompts = [Prompt(f"p{n}", ({"role": "user", "content": f"the {n} cows?"},), "other") for n in range(5)]
    recipe = EvaluateRecipe(sampling=Sampling(temperature=1.0, max_new_tokens=6), batch_size=4)
    together = answer(contestant, prompts, recipe, seed=1)
    [alone] = answer(contestant, prompts[3:4], recipe, seed=1)
    assert alone.tokens == together[3].tokens
    others = answer(contestant, prompts, recipe, seed=2)
    assert [each.tokens for each in others] != [each.tokens for each in together]


def test_figures_say_who_judged_and_how_answers_ended() -> None:
    completions = [
        Completion([5, 6], [0.0] * 2, [0.0] * 2, "stop"),
        Completion([7] * 3, [0.0] * 3, [0.0] * 3, "length"),
    ]
    found = score_answers(
        [[1], [2]],
        completions,
        reward=lambda _, answers: [float(sum(a)) for a in answers],
        judge=lambda p, _: [9.0] * len(p),
    )
    assert found == {
        "judge_reward": [9.0, 9.0],
        "reward": [11.0, 21.0],
        "length": [2.0, 3.0],
        "finished": [1.0, 0.0],
    }
