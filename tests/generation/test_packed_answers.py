"""Packed weights with guesses, adapters, an encoder and scored prompts: numbers near those of the unpacked model."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import pytest
import torch
from tests.generation.small_models import GPT2, LLAMA, make_model
from tests.generation.test_adapters_by_request import adapt
from tests.generation.test_engine import SMALL, make_prompts
from tests.generation.test_engine_encoder_decoder import T5
from tests.generation.test_engine_encoder_decoder import make_model as make_encoder_decoder
from tests.generation.test_speculation import always, speculator_of

from sanbai.foundation import device
from sanbai.generation.answering import answer_all
from sanbai.generation.engine import ContinuousEngine, Speculation
from sanbai.generation.precision import DecodingPrecision, decoding_copy
from sanbai.generation.request import Answer, Request
from sanbai.generation.sampling import Sampling
from sanbai.generation.scoring import score
from sanbai.generation.speculation import NgramProposer
from sanbai.model import packed
from sanbai.model.adapters.adapter import merge_adapter
from sanbai.model.adapters.several import take_products
from sanbai.model.config import ModelConfig
from sanbai.model.packed import can_pack, first_packed
from sanbai.model.row_product import can_multiply_rows
from sanbai.objectives.language import token_logprobs

pytestmark = pytest.mark.skipif(
    not can_pack(torch.ones(1, 1, dtype=torch.bfloat16)), reason="this processor has no bfloat16 products"
)
PRECISIONS = pytest.mark.parametrize("precision", ["bfloat16", "int8", "int4"])
NATS = {"bfloat16": 0.3, "int8": 0.3, "int4": 3.0}
"""How far a token's log-probability may be from the unpacked model's."""
HOT = Sampling(temperature=1.0, max_new_tokens=12)
WIDE = {"width": 64, "feed_forward_width": 96, "head_width": 16}


def ask(prompts: Sequence[Sequence[int]], adapter: str | None = None) -> list[Request]:
    return [
        Request(prompt=prompt, sampling=HOT, seeds=[place], adapter=adapter) for place, prompt in enumerate(prompts)
    ]


def check(answers: Sequence[Answer], exact: Sequence[Sequence[float]], precision: DecodingPrecision) -> None:
    pairs = [
        pair for answer, row in zip(answers, exact, strict=True) for pair in zip(answer.logprobs, row, strict=True)
    ]
    assert len(pairs) > len(answers)
    differences = [abs(found - expected) for found, expected in pairs]
    assert max(differences) < NATS[precision]
    assert fmean(differences) < NATS[precision] / 4


@PRECISIONS
@pytest.mark.parametrize("speculation", ["ngram", "draft"])
@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_guesses_are_read_with_packed_weights_alone_and_in_company(
    config: ModelConfig, speculation: Speculation, precision: DecodingPrecision
) -> None:
    model = make_model(config.model_copy(update=WIDE))
    draft = decoding_copy(model, precision) if speculation == "draft" else None
    prompts = make_prompts(6)
    for rows in (1, 5):
        engine = always(
            decoding_copy(model, precision), SMALL.model_copy(update={"max_rows": rows}), speculation, draft
        )
        speculator = speculator_of(engine)
        if speculation == "ngram":
            speculator.proposer = NgramProposer(sizes=(1,))
        answers = [answer for (answer,) in answer_all(engine, ask(prompts))]
        check(answers, score(model, prompts, [answer.tokens for answer in answers]), precision)
        assert speculator.counts.guesses > 10
        # A draft of the same weights is wrong only where rounding, another alone than in company, decides.
        assert speculation == "ngram" or speculator.counts.right > 0.8 * speculator.counts.guesses


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("cached_weights", [0, 1 << 25])
@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_sixteen_bits_are_near_with_and_without_a_matrix_unit(
    config: ModelConfig, cached_weights: int, tiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_cpu_has_matrix_tiles", lambda: tiles)
    monkeypatch.setattr(packed, "CACHED_WEIGHTS", cached_weights)
    model, prompts = make_model(config.model_copy(update=WIDE)), make_prompts(24)
    copied = decoding_copy(model, "bfloat16")
    first = first_packed(copied)
    assert first is not None
    assert first.by_rows == (can_multiply_rows() and not (tiles and cached_weights == 0))
    for rows, step_tokens in ((1, 16), (24, 256)):  # the prompts are more than 64 tokens together, and are filled up
        settings = SMALL.model_copy(update={"num_blocks": 400, "max_rows": rows, "step_tokens": step_tokens})
        answers = [answer for (answer,) in answer_all(ContinuousEngine(copied, settings), ask(prompts))]
        check(answers, score(model, prompts, [answer.tokens for answer in answers]), "bfloat16")


@PRECISIONS
def test_requests_with_and_without_an_adapter_are_answered_in_the_same_steps(precision: DecodingPrecision) -> None:
    model, prompts = make_model(LLAMA.model_copy(update=WIDE)), make_prompts(6)
    adapted = adapt(model, "bob")
    engine = ContinuousEngine(decoding_copy(model, precision), SMALL)
    engine.add_adapter("bob", take_products(adapted))
    merged = merge_adapter(adapted)
    found = [answer for (answer,) in answer_all(engine, ask(prompts[:3], "bob") + ask(prompts[3:]))]
    with_it, without = [answer.tokens for answer in found[:3]], [answer.tokens for answer in found[3:]]
    check(found[:3], score(merged, prompts[:3], with_it), precision)  # type: ignore[arg-type]
    check(found[3:], score(model, prompts[3:], without), precision)
    other = score(model, prompts[:3], with_it)
    assert max(abs(found[0].logprobs[place] - other[0][place]) for place in range(len(other[0]))) > 3


@PRECISIONS
def test_an_encoder_decoder_is_packed_whole(precision: DecodingPrecision) -> None:
    model, prompts = (
        make_encoder_decoder(T5.model_copy(update={"width": 64, "feed_forward_width": 96})),
        make_prompts(6),
    )
    model = model.float()
    for rows in (1, 5):
        engine = ContinuousEngine(decoding_copy(model, precision), SMALL.model_copy(update={"max_rows": rows}))
        answers = [answer for (answer,) in answer_all(engine, ask(prompts))]
        exact = []
        for prompt, answer in zip(prompts, answers, strict=True):
            written = torch.tensor([[model.config.start_token, *answer.tokens]])
            with torch.no_grad():
                logits_BTV = model(torch.tensor([prompt]), written[:, :-1])
            exact.append(token_logprobs(logits_BTV[0], written[0, 1:]).tolist())
        check(answers, exact, precision)


@PRECISIONS
@pytest.mark.parametrize("length", [1, 2, 9])
def test_prompts_are_scored_and_read_token_by_token(precision: DecodingPrecision, length: int) -> None:
    model, prompt = make_model(LLAMA.model_copy(update=WIDE)), list(range(5, 5 + length))
    copied = decoding_copy(model, precision)
    for step_tokens in (2, 32):
        engine = ContinuousEngine(copied, SMALL.model_copy(update={"max_rows": 1, "step_tokens": step_tokens}))
        ((answer,),) = answer_all(engine, [Request(prompt=prompt, sampling=HOT, seeds=[1], prompt_logprobs=True)])
        found = answer.prompt
        assert found is not None
        (expected,) = score(model, [prompt[:1]], [[*prompt[1:], *answer.tokens]])
        assert [*found.logprobs, *answer.logprobs] == pytest.approx(expected, abs=NATS[precision])
