"""Traps of RLHF trainers that lie between modules: rollouts, reward model, loss and log have to agree.

Those that one module falls into alone are tested beside it; docs/stages/ppo.md lists them all.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.training.conftest import Open, assert_same_bits
from tests.training.test_ppo import PROMPTS, RECIPE, share_liked, start
from torch import Tensor

from sanbai.data.packing import EncodedItems, PackedBatches
from sanbai.data.rankings import Ranking
from sanbai.foundation.device import Compute
from sanbai.foundation.seeds import torch_generator
from sanbai.foundation.stage import Stage
from sanbai.generation.answering import Completion
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.model.hugging_face import save_model
from sanbai.serving.openai_schema import ChatMessage
from sanbai.serving.tool_calls import turns_of
from sanbai.text.chat_template import EncodedConversation, encode_conversation, encode_prompt
from sanbai.text.tokenizer import Tokenizer
from sanbai.training import practice
from sanbai.training.buffer import Buffer, Gathered
from sanbai.training.gradients import differentiate
from sanbai.training.learner import Learner
from sanbai.training.ppo import PpoRecipe, _practice_parts, describe, weigh
from sanbai.training.practice import minibatches, sample
from sanbai.training.reward import collect_ranked_prompts
from sanbai.training.reward_model import calibrate, encode_answer, load_reward_model, save_calibration
from sanbai.training.rollouts import Readings, Rollouts, lay_out, read, response_logprobs, response_values
from sanbai.training.rows import rows_loss

END = 6


def completion(tokens: list[int], finish_reason: str = "stop") -> Completion:
    return Completion(tokens, [0.0] * len(tokens), [0.0] * len(tokens), finish_reason)  # type: ignore[arg-type]


def ragged(lengths: Sequence[int], *, seed: int = 0) -> Gathered:
    """Answers of given lengths with made-up readings, 0 on padding, and their scores."""
    rollouts = Rollouts([[0, 4]] * len(lengths), [completion([7] * (length - 1) + [END]) for length in lengths])
    generator = torch.Generator().manual_seed(seed)
    mask_NR = rollouts.mask()
    grids = [torch.randn(mask_NR.shape, generator=generator) * mask_NR for _ in range(4)]
    return Gathered(rollouts, Readings(*grids), torch.randn(len(lengths), generator=generator))


def unread(rollouts: Rollouts, score: float) -> Gathered:
    """Answers of which the models said nothing, all with one score."""
    zeros = torch.zeros_like(rollouts.mask())
    return Gathered(rollouts, Readings(zeros, zeros, zeros, zeros), torch.full((len(rollouts.prompts),), score))


def described(gathered: Gathered, recipe: PpoRecipe) -> dict[str, float]:
    buffer = Buffer()
    return describe(weigh(buffer.fill(gathered), recipe, kl_coef=recipe.kl_coef), recipe, buffer)


def rows_of(stage: Stage) -> list[dict[str, float]]:
    """What each iteration recorded, the judge's rows left out."""
    rows = [json.loads(line) for line in (stage.run.folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "reward" in row]


@pytest.mark.parametrize("longest", [1, 7])
def test_trap_01_the_score_is_paid_at_the_last_token_of_answers_of_every_length(longest: int) -> None:
    gathered = ragged(range(1, longest + 1))
    readings, score_N = gathered.readings, gathered.score_N
    free = weigh(gathered, RECIPE, kl_coef=0.0)
    for row, length in enumerate(range(1, longest + 1)):
        assert free.reward_NR[row].nonzero().flatten().tolist() == [length - 1]
        assert free.reward_NR[row, length - 1] == score_N[row]
    priced = weigh(gathered, RECIPE, kl_coef=0.3)
    kl_N = (readings.logprob_NR - readings.reference_logprob_NR).sum(1)
    torch.testing.assert_close(priced.reward_NR.sum(1), score_N - 0.3 * kl_N)


def test_trap_02_the_drawn_end_is_learned_though_padding_and_prompt_hold_its_id(
    model: LanguageModel, compute: Compute
) -> None:
    """Packing pads with 0; here 0 ends answers, and the prompt is full of it."""
    end = 0
    rollouts = Rollouts([[0, 3, 0, 4], [0, 0, 4]], [completion([9, 8, end]), completion([end])])
    layout = lay_out(rollouts, [0, 1], context=64)
    assert rollouts.mask().tolist() == [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]
    assert layout.target_M.tolist() == [9, 8, end, end]
    logprob_NR = response_logprobs(model, layout, temperature=1.0, compute=compute)
    for row, place in ((0, 2), (1, 0)):
        gradient = torch.autograd.grad(logprob_NR[row, place], list(model.parameters()), retain_graph=True)
        assert sum(tensor.square().sum().item() for tensor in gradient) > 1e-6


def ending_with(ends: range) -> Tokenizer:
    """A stand-in that lets the given ids end an answer, so that a model without training ends some."""
    return SimpleNamespace(reserved=SimpleNamespace(ends=lambda: frozenset(ends)))  # type: ignore[return-value]


@pytest.mark.parametrize("num_ends_in_prompt", [0, 3])
def test_trap_03_a_cut_answer_pays_once_whatever_its_prompt_holds(
    model: LanguageModel, compute: Compute, num_ends_in_prompt: int
) -> None:
    ends = range(6, 106)
    prompts = [[0, 3, *[END] * num_ends_in_prompt, 140 + number, 4] for number in range(16)]
    recipe = RECIPE.model_copy(update={"max_new_tokens": 3, "unfinished_penalty": 2.0})
    rollouts = sample(model, prompts, recipe, compute, ending_with(ends), seed=1)
    cut = [not any(token in ends for token in response) for response in rollouts.responses]
    assert 0 < sum(cut) < 16
    found = weigh(unread(rollouts, 1.0), recipe, kl_coef=recipe.kl_coef)
    assert found.reward_NR.sum(1).tolist() == [-1.0 if each else 1.0 for each in cut]


def test_trap_04_the_longest_answer_that_ended_by_itself_is_not_cut(model: LanguageModel, compute: Compute) -> None:
    """The model's context cuts a short answer beside a long one that ended, be it with the last token it may have."""
    recipe = RECIPE.model_copy(update={"max_new_tokens": 55})
    prompts = [[0, 3, 141, 4]] * 6 + [[0, 3, *[141] * 59, 4]]  # the last leaves room for two tokens
    rollouts = sample(model, prompts, recipe, compute, ending_with(range(6, 36)), seed=3)
    reasons = [each.finish_reason for each in rollouts.completions]
    lengths = [len(response) for response in rollouts.responses]
    assert max(lengths) > 10
    assert reasons[lengths.index(max(lengths))] == "stop"
    assert (lengths[-1], reasons[-1]) == (2, "length")
    found = weigh(unread(rollouts, 0.0), recipe, kl_coef=recipe.kl_coef)
    assert found.reward_NR.sum(1).tolist() == [0.0 if reason == "stop" else -1.0 for reason in reasons]
    just_enough = recipe.model_copy(update={"max_new_tokens": max(lengths)})
    again = sample(model, prompts, just_enough, compute, ending_with(range(6, 36)), seed=3)
    assert again.responses == rollouts.responses
    assert [each.finish_reason for each in again.completions] == reasons


@pytest.mark.parametrize("positions", ["rotary", "learned"])
@pytest.mark.parametrize("left", [0, 1, 64])
def test_trap_05_padding_on_either_side_moves_no_logprob_value_or_reward(
    config: ModelConfig, positions: str, left: int
) -> None:
    update = {"positions": positions, "max_positions": 160}
    model = LanguageModel(ModelConfig.model_validate({**config.model_dump(), **update}), torch_generator(0, "tests"))
    scalar = ScalarModel.from_language_model(model, torch_generator(1, "head"))
    row = [0, 3, 40, END, 4, 50, 51, END]
    alone_BT = torch.tensor([row])
    for right in (0, 1, 7, 64):
        padded_BT = torch.tensor([[1] * left + row + [1] * right])
        segments_BT = torch.tensor([[0] * left + [1] * len(row) + [0] * right])
        here = slice(left, left + len(row))
        for found_BT, expected_BT in (
            (model(padded_BT, segments_BT=segments_BT)[:, here].log_softmax(-1), model(alone_BT).log_softmax(-1)),
            (scalar(padded_BT, segments_BT=segments_BT)[:, here], scalar(alone_BT)),
        ):
            torch.testing.assert_close(found_BT, expected_BT, rtol=1e-4, atol=1e-5)


def test_trap_07_answers_are_drawn_from_the_policy_itself(
    model: LanguageModel, tokenizer: Tokenizer, compute: Compute
) -> None:
    """Counts of the first token against softmax(logits / T): warped sampling never draws the rare ones."""
    temperature, num = 1.3, 3000
    recipe = RECIPE.model_copy(update={"temperature": temperature, "max_new_tokens": 1, "rollout_rows": num})
    rollouts = sample(model, [PROMPTS[0]] * num, recipe, compute, tokenizer, seed=5)
    counts = Counter(response[0] for response in rollouts.responses)
    with torch.no_grad():
        probability_V = torch.softmax(model(torch.tensor([PROMPTS[0]]))[0, -1] / temperature, -1)
    by_chance = probability_V.argsort()
    for part in by_chance.tensor_split(6):  # from the rarest sixth of the vocabulary to the likeliest
        expected = num * probability_V[part].sum().item()
        found = sum(counts[token] for token in part.tolist())
        assert abs(found - expected) < 4 * math.sqrt(expected)


def test_trap_07_the_mean_of_k1_over_answers_is_no_less_than_zero(
    config: ModelConfig, model: LanguageModel, tokenizer: Tokenizer, compute: Compute
) -> None:
    reference = LanguageModel(config, torch_generator(9, "another"))
    value = ScalarModel.from_language_model(model, torch_generator(1, "head"))
    recipe = RECIPE.model_copy(update={"temperature": 0.8, "rollout_rows": 200})
    rollouts = sample(model, [PROMPTS[0]] * 200, recipe, compute, tokenizer, seed=2)
    found = read(
        rollouts, [list(range(200))], policy=model, reference=reference, value=value, temperature=0.8, compute=compute
    )
    k1_N = (found.logprob_NR - found.reference_logprob_NR).sum(1)
    assert k1_N.mean() > -3 * k1_N.std() / math.sqrt(200)
    numbers = described(Gathered(rollouts, found, torch.zeros(200)), recipe)
    assert abs(numbers["kl"] - numbers["kl_k3"]) < 4 * (k1_N.std() / math.sqrt(200)).item()


def test_trap_09_at_every_step_the_reward_learned_from_is_score_less_penalty_less_beta_kl(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    stage = open_stage()
    recipe = RECIPE.model_copy(update={"learning_rate": 1e-2, "kl_coef": 0.7, "unfinished_penalty": 1.5})
    start(stage, compute, model, tokenizer, items, recipe)
    rows = rows_of(stage)
    assert len(rows) == recipe.num_iterations
    assert rows[-1]["kl"] != 0.0
    assert any(row["finished"] < 1.0 for row in rows)
    for row in rows:
        expected = row["reward"] - 1.5 * (1 - row["finished"]) - 0.7 * row["kl"]
        assert row["rlhf_reward"] == pytest.approx(expected, abs=1e-5)


def test_trap_09_without_a_price_the_reference_moves_nothing() -> None:
    gathered = ragged([4, 1, 6])
    readings = gathered.readings
    recipe = RECIPE.model_copy(update={"kl_coef": 0.0})
    elsewhere = Readings(
        readings.logprob_NR, readings.reference_logprob_NR - 5.0, readings.value_NR, readings.entropy_NR
    )
    first, second = (
        weigh(replace(gathered, readings=each), recipe, kl_coef=recipe.kl_coef) for each in (readings, elsewhere)
    )
    assert torch.equal(first.advantage_NR, second.advantage_NR)
    assert torch.equal(first.return_NR, second.return_NR)


def test_trap_10_an_update_of_one_minibatch_leaves_no_kl_and_clips_nothing_in_the_log(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    stage = open_stage()
    start(stage, compute, model, tokenizer, items, RECIPE.model_copy(update={"minibatch_prompts": 12, "num_epochs": 1}))
    for row in rows_of(stage):
        assert row["approx_kl"] == 0.0
        assert row["clip_fraction"] == 0.0


def test_trap_10_experts_neither_jitter_nor_drop_out_while_practising(
    open_stage: Open, config: ModelConfig, compute: Compute, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    """A policy that arrives in training mode: the ratio of the first minibatch would not be one."""
    sparse = {
        "query_key_norm": True,
        "sparse_layers": "all",
        "experts": {"num_experts": 4, "dropless": True, "jitter": 0.5, "dropout": 0.5},
    }
    policy = LanguageModel(ModelConfig.model_validate({**config.model_dump(), **sparse}), torch_generator(0, "tests"))
    policy.train()
    stage = open_stage()
    recipe = RECIPE.model_copy(update={"num_iterations": 2, "minibatch_prompts": 12, "num_epochs": 1})
    start(stage, compute, policy, tokenizer, items, recipe)
    for row in rows_of(stage):
        assert row["approx_kl"] == 0.0


def test_trap_12_the_sampler_follows_the_trainer_through_every_update(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    stage = open_stage()
    start(stage, compute, model, tokenizer, items, RECIPE.model_copy(update={"learning_rate": 3e-2}))
    rows = rows_of(stage)
    assert rows[-1]["kl_k3"] > 0.05  # the policy went somewhere
    for row in rows:
        assert row["max_mismatch"] < 1e-4
        assert row["max_mismatch_ratio"] == pytest.approx(1.0, abs=1e-3)


def test_trap_12_without_a_step_nothing_drifts(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    stage = open_stage()
    recipe = RECIPE.model_copy(
        update={
            "num_iterations": 50, "batch_prompts": 2, "minibatch_prompts": 2, "num_epochs": 1, "max_new_tokens": 3,
            "learning_rate": 1e-30, "value_learning_rate": 1e-30, "ptx_coef": 0.0, "judge_iterations": 50,
            "checkpoint_iterations": 50,
        }
    )  # fmt: skip
    start(stage, compute, model, tokenizer, items, recipe)
    rows = rows_of(stage)
    assert len(rows) == 50
    for row in rows:
        assert row["kl"] == row["kl_k3"] == row["approx_kl"] == 0.0
        assert row["max_mismatch"] < 1e-4


def test_trap_13_advantages_are_whitened_over_the_iterations_answers_and_nothing_else() -> None:
    gathered = ragged([5, 20, 50, 3])
    rollouts, found = gathered.rollouts, weigh(gathered, RECIPE, kl_coef=RECIPE.kl_coef)
    valid = found.advantage_NR[rollouts.mask().bool()]
    assert valid.mean().item() == pytest.approx(0.0, abs=1e-5)
    assert valid.std(correction=0).item() == pytest.approx(1.0, abs=1e-5)
    assert found.advantage_NR[~rollouts.mask().bool()].abs().max() == 0.0


@pytest.mark.parametrize("garbage", [0.0, 1e9])
def test_trap_14_every_logged_number_counts_answers_tokens_only(garbage: float) -> None:
    lengths = [3, 1, 6]
    gathered = ragged(lengths)
    rollouts, readings, score_N = gathered.rollouts, gathered.readings, gathered.score_N
    hidden_NR = ~rollouts.mask().bool()
    spoiled = Readings(
        *(
            grid_NR.masked_fill(hidden_NR, garbage)
            for grid_NR in (
                readings.logprob_NR,
                readings.reference_logprob_NR,
                readings.value_NR,
                readings.entropy_NR,
            )
        )
    )
    numbers = described(replace(gathered, readings=spoiled), RECIPE)
    cells = [(row, t) for row, length in enumerate(lengths) for t in range(length)]
    delta = [(readings.logprob_NR - readings.reference_logprob_NR)[cell].item() for cell in cells]
    drift = [abs(readings.logprob_NR[cell].item()) for cell in cells]  # the made-up sampler reported 0
    whole = [abs(readings.logprob_NR[row, :length].sum().item()) for row, length in enumerate(lengths)]
    expected = {
        "reward": fmean(score_N.tolist()),
        "kl": math.fsum(delta) / 3,
        "kl_per_token": fmean(delta),
        "kl_k3": math.fsum(math.exp(-each) - 1 + each for each in delta) / 3,
        "entropy": fmean(readings.entropy_NR[cell].item() for cell in cells),
        "length": 10 / 3,
        "finished": 1.0,
        "mismatch": fmean(drift),
        "max_mismatch": max(drift),
        "max_mismatch_ratio": math.exp(max(whole)),
    }
    assert {name: numbers[name] for name in expected} == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("micro_batch_tokens", [1, 25, 60])
def test_trap_15_policy_and_value_gradients_do_not_depend_on_the_micro_batch(
    model: LanguageModel, tokenizer: Tokenizer, compute: Compute, micro_batch_tokens: int
) -> None:
    value = ScalarModel.from_language_model(model, torch_generator(1, "head"))
    prompts = [prompt + prompt[-2:] * number for number, prompt in enumerate(PROMPTS[:8])]
    rollouts = sample(model, prompts, RECIPE, compute, tokenizer, seed=1)

    def gradients(max_tokens: int) -> list[Tensor]:
        recipe = RECIPE.model_copy(update={"micro_batch_tokens": max_tokens, "minibatch_prompts": 8})
        ((minibatch),) = minibatches(rollouts.lengths, recipe, seed=0)
        readings = read(
            rollouts, minibatch, policy=model, reference=model, value=value, temperature=1.0, compute=compute
        )
        score_N = torch.tensor(share_liked(rollouts.prompts, rollouts.responses))
        buffer = Buffer()
        experience = weigh(buffer.fill(Gathered(rollouts, readings, score_N)), recipe, kl_coef=recipe.kl_coef)
        done = differentiate(_practice_parts(model, value, experience, minibatch, recipe, compute, buffer))
        return [*done["policy"].gradient, *done["value"].gradient]

    for found, expected in zip(gradients(micro_batch_tokens), gradients(100_000), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_trap_18_the_critic_begins_as_the_loaded_reward_model_bias_included(
    open_stage: Open, model: LanguageModel, tokenizer: Tokenizer, compute: Compute
) -> None:
    """As the pipeline has it: the saved reward model is loaded twice, as judge of answers and as value model."""
    folder = open_stage().folder
    scalar = ScalarModel.from_language_model(model, torch_generator(1, "head"))
    with torch.no_grad():
        scalar.head.bias.fill_(2.5)
    calibration = calibrate(scalar, [[5, 9, 200, 17], [8] * 9], compute)
    save_model(scalar, folder, tokenizer)
    save_calibration(folder, calibration)
    reward, value = load_reward_model(folder, compute), load_reward_model(folder, compute).model
    assert value.head.bias.item() != 0.0
    rollouts = sample(model, [*PROMPTS, *PROMPTS[:6]], RECIPE, compute, tokenizer, seed=4)
    read_on = Rollouts(rollouts.prompts, [completion([*response, 1]) for response in rollouts.responses])
    values_NR = response_values(value, lay_out(read_on, range(16), context=64), compute=compute)
    at_last = [values_NR[row, len(response)].item() for row, response in enumerate(rollouts.responses)]
    assert at_last == pytest.approx(reward(rollouts.prompts, rollouts.responses), abs=1e-5)


def test_trap_21_documents_of_a_row_do_not_see_each_other(model: LanguageModel) -> None:
    second = [80, 81, 82, 83]

    def loss_of_second(first: list[int]) -> float:
        documents = EncodedItems([EncodedConversation(tokens, [1] * len(tokens)) for tokens in (first, second)])
        batch = next(PackedBatches(documents, row_length=16, batch_rows=1, seed=0, pad_id=1))
        assert batch.segments_BT.max() == 2
        of_second = (batch.tokens_BT >= 80) & (batch.tokens_BT <= 83) & batch.loss_mask_BT
        batch.loss_mask_BT[:] = of_second
        return rows_loss(model, batch, denominator=3).item()

    assert loss_of_second([40, 41, 42]) == pytest.approx(loss_of_second([90, 91, 92]), abs=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_trap_23_the_reference_has_the_policys_first_bits_and_type_before_and_after(
    open_stage: Open,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
) -> None:
    learners: list[Learner] = []
    gather = Learner.gather
    monkeypatch.setattr(
        Learner, "gather", lambda *given, **named: learners.append(gather(*given, **named)) or learners[-1]
    )
    compute = Compute.model_validate({"num_threads": 1, "precision": precision})
    start(open_stage(), compute, model, tokenizer, items, RECIPE.model_copy(update={"num_iterations": 2}))
    (learner,) = learners
    own = {parameter.data_ptr() for parameter in learner.reference.parameters()}
    assert own.isdisjoint(parameter.data_ptr() for parameter in learner.policy.parameters())
    assert all(parameter.dtype == torch.float32 for parameter in learner.reference.parameters())
    assert_same_bits(dict(learner.reference.named_parameters()), dict(model.named_parameters()))


def test_trap_26_what_is_learned_is_what_was_drawn_though_its_text_encodes_otherwise(
    open_stage: Open,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[list[int]] = []
    scored: list[list[int]] = []
    learned: list[list[int]] = []
    sampled, laid_out = practice.sample, lay_out

    def noting(*given: Any, **named: Any) -> Rollouts:
        rollouts = sampled(*given, **named)
        drawn.extend(rollouts.responses)
        return rollouts

    def laying_out(rollouts: Rollouts, group: Sequence[int], **named: Any) -> Any:
        layout = laid_out(rollouts, group, **named)
        lengths = [len(rollouts.completions[index].tokens) for index in group]
        learned.extend(part.tolist() for part in layout.target_M.split(lengths))
        return layout

    def reward(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        scored.extend(map(list, responses))
        return share_liked(prompts, responses)

    monkeypatch.setattr("sanbai.training.roles.sample", noting)
    monkeypatch.setattr("sanbai.training.ppo.lay_out", laying_out)
    recipe = RECIPE.model_copy(update={"num_iterations": 1, "num_epochs": 1})
    start(open_stage(), compute, model, tokenizer, items, recipe, reward=reward)
    assert any(tokenizer.encode(tokenizer.decode(response)) != response for response in drawn)
    assert all(response in scored for response in drawn)
    assert sorted(learned) == sorted(drawn)


@pytest.mark.parametrize("max_tokens", [None, 24, 50])
def test_trap_27_every_stage_and_the_server_read_a_prompt_as_the_same_tokens(
    tokenizer: Tokenizer, max_tokens: int | None
) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is Anna?"},
        {"role": "assistant", "content": "Anna is a baker."},
        {"role": "user", "content": "And Bert, who lives beside her?"},
    ]
    prompt = encode_prompt(tokenizer, messages, max_tokens=max_tokens)
    answer = [*tokenizer.encode("a miller"), END]
    assert prompt.count(tokenizer.reserved.end_of_text) == 1
    if max_tokens is not None:  # the newest words stay
        whole = encode_prompt(tokenizer, messages)
        assert len(prompt) <= max_tokens < len(whole)
        assert prompt[-10:] == whole[-10:]
    else:
        said = [*messages, {"role": "assistant", "content": "a miller"}]
        demonstration = encode_conversation(tokenizer, said)
        assert demonstration.tokens == [*prompt, *answer]
        assert demonstration.loss_mask[-len(answer) :] == [1] * len(answer)
        asked = turns_of([ChatMessage.model_validate(message) for message in messages])
        assert encode_prompt(tokenizer, asked) == prompt
    assert encode_answer(tokenizer, messages, "a miller", max_prompt_tokens=max_tokens) == [*prompt, *answer]
    ranking = Ranking("1", tuple(messages), ("a miller", "a smith"), ((0,), (1,)), "x")
    (ranked,) = collect_ranked_prompts(
        tokenizer, [ranking], max_prompt_tokens=max_tokens or 1000, max_response_tokens=24
    )
    assert list(ranked.tree.prompt) == prompt
    assert list(ranked.tree.answers[0]) == answer
