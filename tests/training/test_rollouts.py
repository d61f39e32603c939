"""Oracle: each response alone, neither padded nor packed, through the whole model, its numbers picked one by one."""

from __future__ import annotations

import copy

import pytest
import torch

from sanbai.foundation.device import Compute
from sanbai.foundation.seeds import torch_generator
from sanbai.generation.answering import Completion, generate
from sanbai.generation.sampling import Sampling
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.reward_model import score_rows
from sanbai.training.rollouts import (
    Readings,
    Rollouts,
    lay_out,
    read,
    repeated_share,
    response_logprobs,
    response_values,
)

PROMPTS = [[0, 3, 40, 6, 4], [0, 3, 41, 42, 43, 6, 4], [4], [0, 3, 6, 4], [0, 3, 6, 90, 91, 6, 4]]
RESPONSES = [[50, 51, 6], [52], [53, 54, 55, 56, 57, 58, 6], [6], [6, 6, 59, 60]]


def completion(tokens: list[int], finish_reason: str = "stop") -> Completion:
    return Completion(tokens, [0.0] * len(tokens), [0.0] * len(tokens), finish_reason)  # type: ignore[arg-type]


@pytest.fixture
def rollouts() -> Rollouts:
    return Rollouts(PROMPTS, [completion(tokens) for tokens in RESPONSES])


@pytest.fixture
def value(model: LanguageModel) -> ScalarModel:
    scalar = ScalarModel.from_language_model(model, torch_generator(1, "head"))
    torch.nn.init.constant_(scalar.head.bias, 0.7)
    return scalar


def slow_logprobs(model: LanguageModel, prompt: list[int], response: list[int], temperature: float) -> list[float]:
    logits_TV = model(torch.tensor([[*prompt, *response]]))[0] / temperature
    logprob_TV = torch.log_softmax(logits_TV, -1)
    return [logprob_TV[len(prompt) - 1 + t, token].item() for t, token in enumerate(response)]


def learned_positions(config: ModelConfig) -> ModelConfig:
    return config.model_copy(
        update={"positions": "learned", "norm": "layer", "feed_forward": "gelu_tanh", "bias": True}
    )


@pytest.mark.parametrize("temperature", [0.7, 1.0])
@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_trap_05_a_response_has_the_same_logprobs_alone_and_in_any_group(
    config: ModelConfig, rollouts: Rollouts, compute: Compute, positions: str, temperature: float
) -> None:
    chosen = config if positions == "rotary" else learned_positions(config)
    model = LanguageModel(chosen, torch_generator(0, "tests"))
    for group in ([0], [4, 2, 0], [3, 1, 4, 0, 2]):
        layout = lay_out(rollouts, group, context=64)
        found_NR = response_logprobs(model, layout, temperature=temperature, compute=compute)
        for place, index in enumerate(group):
            expected = slow_logprobs(model, PROMPTS[index], RESPONSES[index], temperature)
            assert found_NR[place, : len(expected)].tolist() == pytest.approx(expected, abs=1e-5)
            assert found_NR[place, len(expected) :].abs().sum() == 0.0


def test_trap_18_the_value_of_the_last_token_is_the_rewards_score_bias_included(
    value: ScalarModel, rollouts: Rollouts, compute: Compute
) -> None:
    """The value before token t is the scalar of the sequence cut before t; one step further it is the score."""
    values_NR = response_values(value, lay_out(rollouts, range(5), context=64), compute=compute)
    for index, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        cut = [[*prompt, *response[:t]] for t in range(len(response))]
        assert values_NR[index, : len(response)].tolist() == pytest.approx(score_rows(value, cut, compute), abs=1e-5)
    extended = Rollouts(PROMPTS, [completion([*response, 6]) for response in RESPONSES])
    after_NR = response_values(value, lay_out(extended, range(5), context=64), compute=compute)
    rows = [[*prompt, *response] for prompt, response in zip(PROMPTS, RESPONSES, strict=True)]
    at_last = [after_NR[index, len(response)].item() for index, response in enumerate(RESPONSES)]
    assert at_last == pytest.approx(score_rows(value, rows, compute), abs=1e-5)


def test_trap_02_masks_come_from_lengths_whatever_ids_pad_and_end_have(rollouts: Rollouts) -> None:
    assert rollouts.mask().sum(1).tolist() == [3.0, 1.0, 7.0, 1.0, 4.0]
    layout = lay_out(rollouts, range(5), context=64)
    assert layout.target_M.tolist() == [token for response in RESPONSES for token in response]


def reading(
    rollouts: Rollouts,
    groups: list[list[int]],
    policy: LanguageModel,
    reference: LanguageModel,
    value: ScalarModel,
    compute: Compute,
    temperature: float = 1.0,
) -> Readings:
    return read(
        rollouts, groups, policy=policy, reference=reference, value=value, temperature=temperature, compute=compute
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("temperature", [0.5, 0.7, 1.0, 1.3])
def test_trap_06_an_unchanged_policy_has_exactly_no_kl_at_any_temperature(
    model: LanguageModel, value: ScalarModel, rollouts: Rollouts, precision: str, temperature: float
) -> None:
    compute = Compute.model_validate({"num_threads": 1, "precision": precision})
    found = reading(rollouts, [[0, 1], [2, 3, 4]], model, copy.deepcopy(model), value, compute, temperature)
    assert torch.equal(found.logprob_NR, found.reference_logprob_NR)


def test_trap_11_readings_do_not_depend_on_the_groups(
    model: LanguageModel, value: ScalarModel, rollouts: Rollouts, compute: Compute
) -> None:
    whole = reading(rollouts, [[0, 1, 2, 3, 4]], model, model, value, compute)
    single = reading(rollouts, [[4], [2], [0], [1], [3]], model, model, value, compute)
    for name in ("logprob_NR", "value_NR", "entropy_NR"):
        torch.testing.assert_close(getattr(single, name), getattr(whole, name), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_trap_12_the_samplers_logprobs_are_the_trainers(
    model: LanguageModel, value: ScalarModel, compute: Compute, tokenizer: Tokenizer, temperature: float
) -> None:
    sampling = Sampling(temperature=temperature, max_new_tokens=12)
    completions = generate(model, PROMPTS, sampling, seeds=[1, 2, 3, 4, 5], stop_ids={tokenizer.reserved.end})
    rollouts = Rollouts(PROMPTS, completions)
    found = reading(rollouts, [[0, 1, 2, 3, 4]], model, model, value, compute, temperature)
    torch.testing.assert_close(found.logprob_NR, rollouts.sampler_logprobs(), rtol=1e-4, atol=1e-5)


def test_repetition_is_the_share_of_pieces_that_stood_in_the_same_answer_before() -> None:
    assert repeated_share([[1, 2, 3], [9, 9, 9]]) == 0.0  # no piece of four
    assert repeated_share([[1, 2, 3, 4], [1, 2, 3, 4]]) == 0.0  # in another answer
    assert repeated_share([[5, 5, 5, 5, 5, 5, 5], [1, 2, 3, 4, 5]]) == pytest.approx(3 / 6)
