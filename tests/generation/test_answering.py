"""Whole batches against transformers.generate, against the slow way, and against scoring without a cache."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from tests.generation.plainly import write_plainly
from tests.generation.small_models import CONFIGS, GPT2, STOP, make_model

from sanbai.foundation.errors import DataError, ModelError, UsageError
from sanbai.generation.answering import batches_of, generate
from sanbai.generation.precision import decoding_copy
from sanbai.generation.sampling import Sampling
from sanbai.generation.scoring import score
from sanbai.model.adapters.adapter import add_adapter
from sanbai.model.adapters.recipe import AdapterRecipe
from sanbai.model.config import ModelConfig
from sanbai.model.hugging_face import save_model
from sanbai.model.packed import can_pack, first_packed


def make_prompts(count: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(2)
    lengths = torch.randint(1, 14, (count,), generator=generator).tolist()
    return [torch.randint(5, 61, (length,), generator=generator).tolist() for length in lengths]


@CONFIGS
def test_greedy_tokens_are_those_of_transformers(config: ModelConfig, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = make_model(config)
    save_model(model, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    prompts = make_prompts(8)
    ours = generate(
        model, prompts, Sampling(temperature=0.0, max_new_tokens=20), seeds=range(8), stop_ids=STOP, batch_size=5
    )
    for prompt, completion in zip(prompts, ours, strict=True):
        tokens = torch.tensor([prompt])
        expected = theirs.generate(
            tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=20,
            eos_token_id=sorted(STOP), pad_token_id=0,
        )[0, len(prompt) :]  # fmt: skip
        assert completion.tokens == expected.tolist()
    assert {completion.finish_reason for completion in ours} == {"stop", "length"}


@CONFIGS
@pytest.mark.parametrize("batch_size", [6, 64])
@pytest.mark.parametrize(
    "sampling",
    [Sampling(temperature=0.0, max_new_tokens=12), Sampling(temperature=0.8, top_p=0.9, top_k=40, max_new_tokens=16)],
    ids=["greedy", "warped"],
)
def test_answers_are_those_of_the_slow_way(config: ModelConfig, sampling: Sampling, batch_size: int) -> None:
    model, prompts = make_model(config).double(), make_prompts(10) * 2
    ours = generate(model, prompts, sampling, seeds=range(20), stop_ids=STOP, batch_size=batch_size)
    theirs = write_plainly(model, prompts, sampling, seeds=range(20), stop_ids=STOP)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.tokens, one.finish_reason) == (other.tokens, other.finish_reason)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-10)
        assert one.sampled_logprobs == pytest.approx(other.sampled_logprobs, abs=1e-10)


@CONFIGS
@pytest.mark.parametrize("method", ["prompt", "p_tuning", "prefix"])
def test_learned_positions_come_before_each_text(config: ModelConfig, method: str) -> None:
    recipe = AdapterRecipe.model_validate({"method": method, "num_virtual_tokens": 3})
    model = add_adapter(make_model(config), recipe, torch.Generator().manual_seed(3)).model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4)) * 0.1)
    prompts, sampling = make_prompts(7) * 2, Sampling(max_new_tokens=12)
    ours = generate(model, prompts, sampling, seeds=range(14), stop_ids=STOP)
    theirs = write_plainly(model, prompts, sampling, seeds=range(14), stop_ids=STOP)
    assert [(one.tokens, one.finish_reason) for one in ours] == [(one.tokens, one.finish_reason) for one in theirs]
    bare = generate(make_model(config).double(), prompts, sampling, seeds=range(14), stop_ids=STOP)
    assert [one.tokens for one in ours] != [one.tokens for one in bare]


@CONFIGS
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_row_does_not_depend_on_the_rest_of_the_batch(config: ModelConfig, temperature: float) -> None:
    model = make_model(config).double()
    prompts = make_prompts(12)
    prompts += prompts[:4]
    sampling = Sampling(temperature=temperature, top_p=0.9, max_new_tokens=16)
    together = generate(model, prompts, sampling, seeds=range(100, 116), stop_ids=STOP, batch_size=16)
    for index, prompt in enumerate(prompts):
        (alone,) = generate(model, [prompt], sampling, seeds=[100 + index], stop_ids=STOP)
        assert alone.tokens == together[index].tokens
        assert alone.finish_reason == together[index].finish_reason
        assert alone.logprobs == pytest.approx(together[index].logprobs, abs=1e-12)


@CONFIGS
def test_logprobs_are_those_of_scoring_without_a_cache(config: ModelConfig) -> None:
    model = make_model(config)
    prompts = make_prompts(9)
    for temperature in (1.0, 0.7):
        sampling = Sampling(temperature=temperature, max_new_tokens=16)
        completions = generate(model, prompts, sampling, seeds=range(9), stop_ids=STOP)
        scores = score(
            model, prompts, [completion.tokens for completion in completions], temperature=temperature, batch_size=4
        )
        for completion, expected in zip(completions, scores, strict=True):
            assert completion.logprobs == pytest.approx(expected, abs=1e-5)
            assert completion.sampled_logprobs == pytest.approx(completion.logprobs, abs=1e-6)


def test_scores_are_those_of_one_plain_forward_pass_a_row() -> None:
    model = make_model().double()
    prompts, responses = make_prompts(5), [[7, 8, 9], [], [1], [60, 3], [5] * 12]
    found = score(model, prompts, responses, batch_size=2)
    for prompt, response, logprobs in zip(prompts, responses, found, strict=True):
        table = torch.log_softmax(model(torch.tensor([prompt + response]))[0], dim=-1)
        expected = [table[len(prompt) - 1 + offset, token].item() for offset, token in enumerate(response)]
        assert logprobs == pytest.approx(expected, abs=1e-12)


def test_equal_seeds_give_equal_answers_and_others_differ() -> None:
    model = make_model()
    sampling = Sampling(max_new_tokens=16)
    prompt = make_prompts(1)[0]
    first = generate(model, [prompt] * 3, sampling, seeds=[5, 6, 5], stop_ids=())
    assert first[0].tokens == first[2].tokens
    assert first[0].tokens != first[1].tokens


def test_an_answer_ends_with_its_stop_token_or_at_the_limit() -> None:
    model = make_model()
    completions = generate(
        model, make_prompts(40), Sampling(max_new_tokens=16), seeds=range(40), stop_ids=STOP, batch_size=16
    )
    for completion in completions:
        assert not STOP & set(completion.tokens[:-1])
        if completion.finish_reason == "stop":
            assert completion.tokens[-1] in STOP
        else:
            assert len(completion.tokens) == 16
        assert len(completion.tokens) == len(completion.logprobs) == len(completion.sampled_logprobs)


def test_an_answer_ends_where_the_context_ends() -> None:
    model = make_model(GPT2)
    prompts = [[5] * 40, [6] * 3]
    full, short = generate(model, prompts, Sampling(max_new_tokens=30), seeds=[1, 2], stop_ids=())
    assert (len(full.tokens), full.finish_reason) == (8, "length")
    assert len(short.tokens) == 30


def test_bfloat16_decoding_leaves_the_model_alone_and_stays_near() -> None:
    model = make_model()
    before = copy.deepcopy(model.state_dict())
    prompts = make_prompts(6)
    rough = generate(model, prompts, Sampling(max_new_tokens=8), seeds=range(6), stop_ids=(), precision="bfloat16")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    exact = score(model, prompts, [completion.tokens for completion in rough])
    for completion, expected in zip(rough, exact, strict=True):
        assert completion.logprobs == pytest.approx(expected, abs=0.3)


def test_batches_alone_give_the_same_numbers() -> None:
    model, prompts, sampling = make_model(), make_prompts(20), Sampling(max_new_tokens=9)
    together = generate(model, prompts, sampling, seeds=range(20), stop_ids=STOP, batch_size=6)
    for rows in batches_of(prompts, 6):
        apart = generate(model, [prompts[row] for row in rows], sampling, seeds=list(rows), stop_ids=STOP, batch_size=6)
        assert apart == [together[row] for row in rows]


def test_what_is_raised_between_steps_ends_the_work() -> None:
    steps = 0

    def leave() -> None:
        nonlocal steps
        steps += 1
        if steps == 3:
            raise UsageError("enough")

    with pytest.raises(UsageError, match="enough"):
        generate(make_model(), make_prompts(4), Sampling(), seeds=range(4), stop_ids=(), before_step=leave)
    assert steps == 3


def test_what_is_frozen_in_half_precision_is_shared_and_not_packed() -> None:
    model = make_model()
    shared = model.trunk.blocks[0].get_submodule("attention.qkv").weight
    shared.requires_grad_(requires_grad=False)
    shared.data = shared.data.bfloat16()
    copied = decoding_copy(model, "bfloat16")
    blocks = copied.trunk.blocks
    assert blocks[0].get_submodule("attention.qkv").weight is shared
    assert type(blocks[0].get_submodule("attention.qkv")) is torch.nn.Linear
    packs = can_pack(torch.ones(1, 1, dtype=torch.bfloat16))
    assert (first_packed(copied) is not None) == packs
    completion = generate(copied, [[7, 8]], Sampling(max_new_tokens=4), seeds=[1], stop_ids=())[0]
    assert len(completion.tokens) == 4


def test_progress_counts_finished_answers() -> None:
    finished: list[int] = []
    sampling = Sampling(max_new_tokens=2)
    generate(
        make_model(), make_prompts(7), sampling, seeds=range(7), stop_ids=(), batch_size=3, on_batch=finished.append
    )
    assert finished == [3, 6, 7]


def test_impossible_requests_are_refused() -> None:
    model, sampling = make_model(), Sampling(max_new_tokens=2)
    with pytest.raises(UsageError, match="2 prompts and 1 seeds"):
        generate(model, [[5], [6]], sampling, seeds=[1], stop_ids=())
    with pytest.raises(DataError, match="no token"):
        generate(model, [[]], sampling, seeds=[1], stop_ids=())
    with pytest.raises(ModelError, match=r"prompt 1 has 48 tokens and the model's context 48"):
        generate(model, [[5], [6] * 48], sampling, seeds=[1, 2], stop_ids=())
