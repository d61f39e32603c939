"""Encoder-decoders in the continuous engine: against transformers.generate, and against each answer on its own."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from tests.generation.plainly import write_plainly
from tests.generation.test_encoder_decoder import STOP, TIE, WRITERS, make_sources, open_both, pad
from tests.generation.test_schedules import check_accounts
from tests.model.families import Family

from sanbai.foundation.errors import ModelError, UsageError
from sanbai.generation.answering import answer_all, generate
from sanbai.generation.engine import ContinuousEngine, EngineSettings
from sanbai.generation.request import Answer, Request
from sanbai.generation.sampling import Sampling
from sanbai.generation.speculation import Experience, Gauge
from sanbai.generation.weights import weights_digest
from sanbai.model.config import ModelConfig
from sanbai.model.encoder_decoder import EncoderDecoder
from sanbai.model.experts import ExpertsConfig

T5 = ModelConfig(
    vocab_size=61, num_layers=2, encoder_layers=2, width=32, num_heads=4, num_kv_heads=4, head_width=8,
    feed_forward_width=48, feed_forward="relu", positions="relative", relative_buckets=8, relative_distance=12,
    scaled_attention=False, scaled_head=True, max_positions=24,
)  # fmt: skip
ROTARY = T5.model_copy(update={"positions": "rotary", "num_kv_heads": 2, "scaled_attention": True})


class Always(Gauge):
    def best(self, experience: Experience, rows: int, most: int) -> int:
        return min(most, 3)


def make_model(config: ModelConfig, seed: int = 1) -> EncoderDecoder:
    generator = torch.Generator().manual_seed(seed)
    model = EncoderDecoder(config, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.25)
    return model.eval().double()


@pytest.mark.parametrize("family", WRITERS, ids=lambda family: family.name)
def test_greedy_tokens_are_those_of_transformers(family: Family, tmp_path: Path) -> None:
    theirs, model = open_both(family, tmp_path)
    sources, limit = make_sources(), 20
    expected = theirs.generate(
        pad(sources)[0], attention_mask=pad(sources)[1], do_sample=False, max_new_tokens=limit,
        eos_token_id=sorted(STOP), pad_token_id=0, use_cache=False, output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    engine = ContinuousEngine(model, EngineSettings(num_blocks=64, block_size=4, max_rows=5, step_tokens=32))
    sampling = Sampling(temperature=0.0, max_new_tokens=limit)
    requests = [Request(prompt=each, sampling=sampling, seeds=[1], stop_ids=frozenset(STOP)) for each in sources]
    num_equal = 0
    for row, (answer,) in enumerate(answer_all(engine, requests)):
        wanted = expected.sequences[row, 1:].tolist()
        pairs = enumerate(zip(answer.tokens, wanted, strict=False))
        differing = next((step for step, (found, other) in pairs if found != other), None)
        num_equal += differing is None
        if differing is not None:
            best = expected.logits[differing][row].topk(2).values
            assert best[0] - best[1] < TIE, f"row {row}, step {differing}"
        else:
            assert not any(wanted[len(answer.tokens) :])
    assert num_equal >= 6


@pytest.mark.parametrize("config", [T5, ROTARY], ids=["relative", "rotary"])
@pytest.mark.parametrize("speculation", ["off", "ngram"])
def test_answers_are_those_of_isolated_runs_under_random_schedules(config: ModelConfig, speculation: str) -> None:
    model, preempted, cancelled, guessed = make_model(config), 0, 0, 0
    for seed in range(12):
        dice = random.Random(seed)
        size = dice.choice([1, 4, 8])
        settings = EngineSettings.model_validate(
            {"block_size": size, "num_blocks": -(-25 // size) + dice.choice([0, 2, 40]), "max_rows": 5,
             "step_tokens": 6 + dice.choice([0, 20]), "speculation": speculation}
        )  # fmt: skip
        engine = ContinuousEngine(model, settings)
        if engine.speculator is not None:
            engine.speculator.gauge = Always()
        stems = [[dice.randrange(5, 61) for _ in range(dice.randint(1, 16))] for _ in range(4)]
        asked: dict[int, tuple[Request, list[Answer]]] = {}
        ended: set[int] = set()
        coming = sorted(dice.randint(0, 15) for _ in range(6))
        step = 0
        while coming or engine.busy:
            while coming and coming[0] <= step:
                coming.pop(0)
                request = Request(
                    prompt=dice.choice(stems),
                    sampling=Sampling(temperature=dice.choice([0.0, 1.0]), max_new_tokens=dice.randint(1, 20)),
                    seeds=[dice.randrange(99) for _ in range(dice.choice([1, 3]))],
                    stop_ids=frozenset(STOP),
                )
                asked[engine.submit(request)] = (request, [Answer() for _ in request.seeds])
            for new in engine.step():
                asked[new.request][1][new.answer].add(new)
            check_accounts(engine)
            if asked and dice.random() < 0.05:
                ended.add(number := dice.choice(sorted(asked)))
                engine.cancel(number)
            step += 1
        assert (engine.pool.num_used, engine.pool.num_findable) == (0, 0)
        for number, (request, answers) in asked.items():
            prompts = [request.prompt] * len(answers)
            alone = write_plainly(model, prompts, request.sampling, seeds=request.seeds, stop_ids=STOP)
            for answer, other in zip(answers, alone, strict=True):
                if number not in ended:
                    assert answer.finish_reason == other.finish_reason
                    assert len(answer.tokens) == len(other.tokens)
                assert answer.tokens == other.tokens[: len(answer.tokens)]
                count = len(answer.tokens)
                assert answer.logprobs == pytest.approx(other.logprobs[:count], abs=1e-10)
        preempted += engine.scheduler.num_preemptions
        cancelled += len(ended)
        guessed += 0 if engine.speculator is None else engine.speculator.counts.right
    assert min(preempted, cancelled) > 5
    assert (guessed > 5) == (speculation == "ngram")


def test_what_is_read_is_read_once_for_all_answers_and_kept_no_longer_than_they_are() -> None:
    model, calls = make_model(T5), 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    model.encoder.register_forward_hook(count)
    engine = ContinuousEngine(model, EngineSettings(num_blocks=64, block_size=4, max_rows=8, step_tokens=32))
    number = engine.submit(Request(prompt=[9, 8, 7], sampling=Sampling(max_new_tokens=6), seeds=range(4)))
    rows = list(engine._rows[number])
    while engine.busy:
        engine.step()
        kept = {id(row.memory) for row in rows if row.memory is not None}
        assert len(kept) <= 1
    assert calls == 1
    assert [row.memory for row in rows] == [None] * 4


def test_new_weights_are_read_with_again() -> None:
    old, new, served = (make_model(T5, seed) for seed in (1, 2, 1))
    engine = ContinuousEngine(served, EngineSettings(num_blocks=64, block_size=4, max_rows=8, step_tokens=32))
    request = Request(prompt=[9, 8, 7], sampling=Sampling(max_new_tokens=8), seeds=[3])
    (before,) = answer_all(engine, [request])[0]
    engine.submit(request)
    engine.step()
    assert engine.replace_weights(new.state_dict()) == weights_digest(new.state_dict())
    while engine.busy:
        engine.step()
    (after,) = answer_all(engine, [request])[0]
    for model, answer in ((old, before), (new, after)):
        (alone,) = write_plainly(model, [[9, 8, 7]], request.sampling, seeds=[3], stop_ids=())
        assert answer.tokens == alone.tokens
    assert before.tokens != after.tokens


def test_limits_are_the_encoders_and_prompts_have_no_log_probabilities() -> None:
    engine = ContinuousEngine(make_model(ROTARY), EngineSettings(num_blocks=8, max_rows=4, step_tokens=8))
    plain = {"sampling": Sampling(max_new_tokens=99), "seeds": [1]}
    (answer,) = answer_all(engine, [Request(prompt=[5] * 24, **plain)])[0]  # type: ignore[arg-type]
    assert len(answer.tokens) == 24
    with pytest.raises(ModelError, match="prompt 0 has 25 tokens and the encoder reads 24"):
        engine.submit(Request(prompt=[5] * 25, **plain))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="prompt_logprobs of a text that an encoder reads"):
        engine.submit(Request(prompt=[5], prompt_logprobs=True, **plain))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="the decoder without its encoder"):
        ContinuousEngine(make_model(ROTARY).decoder, engine.settings)


def test_texts_do_not_compete_for_the_encoders_experts() -> None:
    experts = ExpertsConfig(num_experts=4, evaluation_capacity_factor=1.0)
    model = make_model(ROTARY.model_copy(update={"sparse_layers": "all", "experts": experts}))
    sampling = Sampling(max_new_tokens=12)
    dice = random.Random(1)
    sources = [[dice.randrange(5, 61) for _ in range(9)] for _ in range(6)]
    together = generate(model, sources, sampling, seeds=range(6), stop_ids=STOP)
    for place, source in enumerate(sources):
        (alone,) = generate(model, [source], sampling, seeds=[place], stop_ids=STOP)
        assert alone.tokens == together[place].tokens
