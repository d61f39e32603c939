"""What a request may ask of the continuous engine, each thing on its own; schedules are in `test_schedules.py`."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.generation.plainly import write_plainly
from tests.generation.small_models import CONFIGS, GREEDY, LLAMA, STOP, ask, make_model
from torch import Tensor

from sanbai.foundation.errors import DataError, ModelError, ResourceError, UsageError
from sanbai.generation import stems
from sanbai.generation.answering import answer_all, generate, stream_answer
from sanbai.generation.engine import ContinuousEngine, EngineSettings
from sanbai.generation.precision import DecodingPrecision, decoding_copy
from sanbai.generation.request import Answer, Shaping
from sanbai.generation.sampling import Sampling
from sanbai.generation.scoring import score
from sanbai.generation.weights import weights_digest
from sanbai.model.config import ModelConfig
from sanbai.model.experts import ExpertsConfig
from sanbai.model.hugging_face import save_model
from sanbai.model.packed import can_pack
from sanbai.model.transformer import Inputs
from sanbai.text.tokenizer import Tokenizer, train_tokenizer

SMALL = EngineSettings(num_blocks=64, block_size=4, max_rows=8, step_tokens=32)


def make_prompts(count: int) -> list[list[int]]:
    dice = random.Random(2)
    return [[dice.randrange(5, 61) for _ in range(dice.randint(1, 14))] for _ in range(count)]


# --- beside others ---


@CONFIGS
def test_greedy_tokens_are_those_of_transformers(config: ModelConfig, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = make_model(config)
    save_model(model, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    requests = [ask(prompt, Sampling(temperature=0.0, max_new_tokens=20), stop_ids=STOP) for prompt in make_prompts(12)]
    answers = answer_all(ContinuousEngine(model, SMALL), requests)
    for request, (answer,) in zip(requests, answers, strict=True):
        tokens = torch.tensor([request.prompt])
        expected = theirs.generate(
            tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=20,
            eos_token_id=sorted(STOP), pad_token_id=0,
        )[0, len(request.prompt) :]  # fmt: skip
        assert answer.tokens == expected.tolist()
    assert {answer.finish_reason for (answer,) in answers} == {"stop", "length"}


@pytest.mark.skipif(
    not can_pack(torch.ones(1, 1, dtype=torch.bfloat16)), reason="this processor has no bfloat16 products"
)
@CONFIGS
@pytest.mark.parametrize(("precision", "nats"), [("bfloat16", 0.3), ("int8", 0.3), ("int4", 3.0)])
def test_answers_in_few_bits_are_nearly_the_models_alone_and_in_company(
    config: ModelConfig, precision: DecodingPrecision, nats: float
) -> None:
    config = config.model_copy(update={"width": 64, "feed_forward_width": 96, "head_width": 16})
    model, prompts = make_model(config), [[7], *make_prompts(4)]
    decoder = decoding_copy(model, precision)
    for rows in (1, 5):
        engine = ContinuousEngine(decoder, SMALL.model_copy(update={"max_rows": rows}))
        answers = [answer for (answer,) in answer_all(engine, [ask(prompt, seeds=[2]) for prompt in prompts])]
        exact = score(model, prompts, [answer.tokens for answer in answers])
        for answer, logprobs in zip(answers, exact, strict=True):
            assert answer.logprobs == pytest.approx(logprobs, abs=nats)
        engine.replace_weights({name: 0 * tensor for name, tensor in model.state_dict().items()})
        (after,) = answer_all(engine, [ask(prompts[0])])
        assert after[0].logprobs == pytest.approx([-math.log(61)] * 12, abs=1e-4)
        engine.replace_weights(model.state_dict())


@pytest.mark.parametrize("limits", [{"dropless": True}, {"evaluation_capacity_factor": 0.01}], ids=["none", "batch"])
def test_experts_read_all_who_choose_them(limits: dict[str, Any]) -> None:
    experts = ExpertsConfig(num_experts=4, top_k=2, dropless=True)
    config = LLAMA.model_copy(update={"sparse_layers": "all", "experts": experts})
    theirs = write_plainly(make_model(config).double(), make_prompts(6), GREEDY, seeds=range(6), stop_ids=STOP)
    limited = config.model_copy(update={"experts": ExpertsConfig(num_experts=4, top_k=2, **limits)})
    model = make_model(limited).double()
    ours = generate(model, make_prompts(6), GREEDY, seeds=range(6), stop_ids=STOP)
    assert [each.tokens for each in ours] == [each.tokens for each in theirs]


def test_a_model_that_looks_ahead_is_refused() -> None:
    with pytest.raises(ModelError, match="looks ahead"):
        ContinuousEngine(make_model(LLAMA.model_copy(update={"masks": ("full",)})), SMALL)


# --- sharing ---


def test_answers_to_one_prompt_read_it_once() -> None:
    model, read = make_model().double(), 0
    embed = model.trunk.embed

    def counted(x_BTE: Tensor, positions_BT: Tensor, inputs: Inputs) -> Tensor:
        nonlocal read
        read += len(x_BTE)
        return embed(x_BTE, positions_BT, inputs)

    model.trunk.embed = counted  # type: ignore[method-assign]
    prompt, sampling = make_prompts(1)[0] * 3, Sampling(max_new_tokens=5)
    engine = ContinuousEngine(model, EngineSettings(num_blocks=200, block_size=4, max_rows=9, step_tokens=64))
    (answers,) = answer_all(engine, [ask(prompt, sampling, seeds=range(9))])
    assert read == len(prompt) + 9 * 4
    assert len({tuple(answer.tokens) for answer in answers}) > 1
    read = 0
    (again,) = answer_all(engine, [ask(prompt, sampling, seeds=[3])])
    assert again[0].tokens == answers[3].tokens
    assert again[0].logprobs == pytest.approx(answers[3].logprobs, abs=1e-12)
    known = (len(prompt) - 1) // 4 * 4
    assert engine.scheduler.num_found_tokens == known > 0
    assert read == len(prompt) - known + 4


def test_prefixes_are_not_shared_between_tenants_nor_left_by_who_leaves_no_trace() -> None:
    engine, prompt = ContinuousEngine(make_model(), SMALL), list(range(5, 30))
    answer_all(engine, [ask(prompt, remember=False)])
    assert engine.pool.num_findable == 0
    answer_all(engine, [ask(prompt, tenant="ann")])
    answer_all(engine, [ask(prompt, tenant="bob"), ask(prompt, tenant="ann", remember=False)])
    assert engine.scheduler.num_found_tokens == 0
    answer_all(engine, [ask(prompt, tenant="ann")])
    assert engine.scheduler.num_found_tokens == 24


def test_blocks_return_to_the_baseline_after_thousands_of_mixed_requests() -> None:
    config = ModelConfig(
        vocab_size=31, num_layers=1, width=8, num_heads=1, num_kv_heads=1, head_width=8, feed_forward_width=8,
        max_positions=32,
    )  # fmt: skip
    engine = ContinuousEngine(
        make_model(config), EngineSettings(num_blocks=90, block_size=2, max_rows=32, step_tokens=128)
    )
    dice, asked, ended, live = random.Random(1), 0, 0, set()
    while asked < 3000 or engine.busy:
        while asked < 3000 and engine.num_waiting < 20:
            prompt = [dice.randrange(5, 8) for _ in range(dice.randint(1, 12))]
            sampling = Sampling(max_new_tokens=dice.randint(1, 12))
            live.add(engine.submit(ask(prompt, sampling, seeds=range(dice.choice([1, 1, 3])), stop_ids=STOP)))
            asked += 1
        ended += sum(new.finish_reason is not None for new in engine.step())
        if dice.random() < 0.3:
            engine.cancel(dice.choice(sorted(live)))
    assert ended > 2000
    assert engine.scheduler.num_preemptions > 50
    assert (engine.pool.num_used, engine.pool.num_available) == (0, 90)
    assert not engine._rows
    engine.pool.forget()
    assert sorted(engine.pool.take(90)) == list(range(90))


# --- cancelling, limits ---


def test_a_cancelled_request_returns_every_block_at_once_in_every_state() -> None:
    engine = ContinuousEngine(make_model(), EngineSettings(num_blocks=64, block_size=4, max_rows=4, step_tokens=10))
    decoding = engine.submit(ask([5, 6, 7], seeds=[1, 2, 3]))
    engine.step()
    reading = engine.submit(ask(list(range(5, 35)), seeds=[1, 2]))
    waiting = engine.submit(ask([8]))
    engine.step()
    assert (len(engine.scheduler.decoding), len(engine.scheduler.prefilling), engine.num_waiting) == (3, 1, 1)
    for number in (reading, waiting, decoding, decoding, 99):
        engine.cancel(number)
    assert engine.pool.num_used == 0
    assert not engine.busy
    assert engine.step() == []


def test_closing_a_stream_returns_its_blocks() -> None:
    engine = ContinuousEngine(make_model(), SMALL)
    pieces = stream_answer(engine, ask([5, 6, 7]))
    tokens = [next(pieces).token, next(pieces).token]  # type: ignore[call-overload]
    pieces.close()  # type: ignore[attr-defined]
    assert engine.pool.num_used == 0
    assert tokens == answer_all(engine, [ask([5, 6, 7])])[0][0].tokens[:2]


def test_impossible_requests_are_refused_and_leave_nothing() -> None:
    engine = ContinuousEngine(
        make_model(), EngineSettings(num_blocks=3, block_size=4, max_rows=2, step_tokens=8, max_waiting=1)
    )
    for request, error, match in (
        (ask([]), DataError, "no token"),
        (ask([61]), DataError, "token id 61 is not among the model's 0 to 60"),
        (ask([5] * 48), ModelError, "no room is left for an answer"),
        (ask([5], Sampling(max_new_tokens=13)), ResourceError, "may need 4 cache blocks and the engine has 3"),
        (ask([5], seeds=[]), UsageError, "without seeds"),
        (ask([5], stop_strings=["x"]), UsageError, "without a tokenizer"),
        (ask([5], top_logprobs=62), UsageError, "wanted 0 to 61"),
        (ask([5], mask=lambda _: torch.zeros(61)), UsageError, "or allows none to begin with"),
        (ask([5], mask=lambda _: torch.ones(60)), UsageError, "is not of 61 tokens"),
    ):
        with pytest.raises(error, match=match):
            engine.submit(request)
    engine.submit(ask([5], Sampling(max_new_tokens=4)))
    with pytest.raises(ResourceError, match="1 requests are waiting"):
        engine.submit(ask([5], Sampling(max_new_tokens=4)))
    assert len(engine._rows) == 1
    with pytest.raises(UsageError, match="step_tokens 8 leaves none"):
        ContinuousEngine(make_model(), EngineSettings(max_rows=8, step_tokens=8))


# --- log-probabilities, masks, text ---


@pytest.mark.parametrize("step_tokens", [9, 64])
def test_log_probabilities_of_prompts_are_those_of_one_plain_pass(step_tokens: int) -> None:
    model = make_model().double()
    engine = ContinuousEngine(model, EngineSettings(num_blocks=64, block_size=4, max_rows=8, step_tokens=step_tokens))
    prompts = [list(range(5, 30)), [7], list(range(5, 30))]
    requests = [ask(prompt, prompt_logprobs=True, top_logprobs=3, seeds=[1, 2]) for prompt in prompts]
    for prompt, (answer, other) in zip(prompts, answer_all(engine, requests), strict=True):
        table = torch.log_softmax(model(torch.tensor([prompt]))[0], dim=-1)
        found = answer.prompt
        assert found is not None
        assert other.prompt is None
        expected = [table[place, token].item() for place, token in enumerate(prompt[1:])]
        assert found.logprobs == pytest.approx(expected, abs=1e-12)
        for place, tops in enumerate(found.top):
            best = table[place].topk(3)
            assert [token for token, _ in tops] == best.indices.tolist()
            assert [logprob for _, logprob in tops] == pytest.approx(best.values.tolist(), abs=1e-12)


def test_a_mask_says_what_may_come_and_when_nothing_may_the_answer_ends() -> None:
    sentence = [9, 8, 7]

    def only_the_sentence(answer: Sequence[int]) -> Tensor:
        allowed = torch.zeros(61, dtype=torch.bool)
        allowed[sentence[len(answer) : len(answer) + 1]] = True
        return allowed

    def broken(answer: Sequence[int]) -> Tensor:
        if len(answer) == 2:
            raise RuntimeError("no such rule")
        return torch.ones(61, dtype=torch.bool)

    engine = ContinuousEngine(make_model(), SMALL)
    hot = Sampling(max_new_tokens=12)
    requests = [ask([5], hot, mask=only_the_sentence), ask([5], mask=broken), ask([5]), ask([5], hot)]
    (spoken,), (failed,), (greedy,), (free,) = answer_all(engine, requests)
    assert (spoken.tokens, spoken.finish_reason) == (sentence, "stop")
    assert spoken.sampled_logprobs == pytest.approx([0.0] * 3, abs=1e-6)
    assert max(spoken.logprobs) < 0
    assert (failed.tokens, failed.finish_reason) == (greedy.tokens[:2], "failed")
    assert len(free.tokens) == 12
    assert engine.pool.num_used == 0


def test_likeliest_tokens_are_reported_beside_the_drawn_one() -> None:
    engine = ContinuousEngine(make_model(), SMALL)
    (answer,), (other,) = answer_all(
        engine, [ask([5], top_logprobs=2), ask([6], shaping=Shaping(logit_bias={9: 99.0}))]
    )
    for token, logprob, tops in zip(answer.tokens, answer.logprobs, answer.top, strict=True):
        assert tops[0] == (token, pytest.approx(logprob, abs=1e-6))
        assert tops[1][1] <= tops[0][1]
    assert other.tokens == [9] * 12
    assert other.top == [[]] * 12


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the bread of Ann is good, 三百首 poems"] * 4, vocab_size=290)


def test_text_is_that_of_the_tokens_up_to_a_stop_string(tokenizer: Tokenizer) -> None:
    model = make_model(LLAMA.model_copy(update={"vocab_size": tokenizer.vocab_size, "max_positions": 64}))
    engine = ContinuousEngine(model, SMALL, tokenizer=tokenizer)
    prompt, sampling = tokenizer.encode("Ann"), Sampling(max_new_tokens=40)
    (plain,) = answer_all(engine, [ask(prompt, sampling, seeds=range(6))])
    stops = [answer.text[10:13] for answer in plain]
    requests = [ask(prompt, sampling, seeds=[seed], stop_strings=[stop, ""]) for seed, stop in enumerate(stops)]
    for seed, (stop, whole, (cut,)) in enumerate(zip(stops, plain, answer_all(engine, requests), strict=True)):
        assert whole.text == tokenizer.decode(whole.tokens)
        assert cut.text == whole.text[: whole.text.index(stop)]
        assert cut.tokens == whole.tokens[: len(cut.tokens)]
        assert len(cut.tokens) < len(whole.tokens)
        assert cut.finish_reason == "stop"
        pieces = list(stream_answer(engine, requests[seed]))
        assert [piece.token for piece in pieces] == cut.tokens
        assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["stop"]
        assert "".join(piece.text for piece in pieces) == cut.text


def test_gradients_stay_on_for_the_caller_between_the_tokens_of_a_stream() -> None:
    for _ in stream_answer(ContinuousEngine(make_model(), SMALL), ask([5, 6, 7])):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


# --- new weights ---


@pytest.mark.parametrize("worth", [1, stems.WORTH])
def test_new_weights_between_steps_are_as_if_the_answer_had_been_read_with_them(
    worth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stems, "WORTH", worth)
    old, new = make_model(seed=1).double(), make_model(seed=2).double()
    served = make_model(seed=1).double()
    engine = ContinuousEngine(served, SMALL)
    prompt = list(range(5, 20))
    number = engine.submit(ask(prompt, stop_ids=STOP, seeds=[1, 2]))
    answers = [Answer(), Answer()]
    for step in range(4):
        for token in engine.step():
            answers[token.answer].add(token)
        assert step < 4
    digest = engine.replace_weights(new.state_dict())
    assert digest == weights_digest(new.state_dict()) == weights_digest(served.state_dict())
    assert digest != weights_digest(old.state_dict())
    assert (engine.pool.num_used, engine.pool.num_findable) == (0, 0)
    while engine.busy:
        for token in engine.step():
            answers[token.answer].add(token)
    begun = write_plainly(old, [prompt], GREEDY, seeds=[1], stop_ids=STOP)[0].tokens[:4]
    rest = Sampling(temperature=0.0, max_new_tokens=8)
    ended = write_plainly(new, [[*prompt, *begun]], rest, seeds=[1], stop_ids=STOP)[0].tokens
    assert number == 0
    for answer in answers:
        assert answer.tokens == [*begun, *ended]
    with pytest.raises(ModelError, match="missing from the new weights"):
        engine.replace_weights({})
