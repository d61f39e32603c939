"""The continuous engine under random schedules against each answer on its own: one plain pass without a cache.

The plain pass reads prompt and answer at once; at every position a slow draw in Python floats says which token its
logits give under the request's rules. By induction that is the isolated run. In float64 all tokens must be equal. In
float32 a first difference is allowed only where a rounding of 1e-4 could make it, and such cases are counted.

Log-probabilities are the training model's within 1e-5 in float32. This model's weights are rough, so that tokens are
far from equally likely, and its own plain pass is up to 1.0e-5 from what it is in float64 (400 schedules; the
engine's up to 0.9e-5; 99.9 % of either within 0.5e-5). Of the differences between two such numbers, one in ten
thousand may therefore be up to 2e-5; they are counted too.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Self

import pytest
import torch

from sanbai.generation import stems
from sanbai.generation.engine import ContinuousEngine, EngineSettings
from sanbai.generation.request import Answer, Request, Shaping
from sanbai.generation.sampling import Sampling, draw_uniforms
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel
from sanbai.objectives.language import token_logprobs

VOCABULARY = 61
LLAMA = ModelConfig(
    vocab_size=VOCABULARY, num_layers=2, width=32, num_heads=4, num_kv_heads=2, head_width=8, feed_forward_width=48,
    max_positions=48,
)  # fmt: skip
GPT2 = ModelConfig(
    vocab_size=VOCABULARY, num_layers=2, width=32, num_heads=4, num_kv_heads=4, head_width=8, feed_forward_width=64,
    feed_forward="gelu_tanh", norm="layer", norm_epsilon=1e-5, positions="learned", max_positions=48, bias=True,
)  # fmt: skip
BANDED = LLAMA.model_copy(update={"masks": ("causal", "banded"), "band_width": 5, "query_key_norm": True})
T5_BIAS = LLAMA.model_copy(update={"positions": "relative", "relative_buckets": 8, "relative_distance": 12})
ROUNDING = 1e-4
TOLERANCE = 1e-5


def make_model(config: ModelConfig, dtype: torch.dtype) -> LanguageModel:
    """Random weights large enough that distributions are far from uniform and stop tokens come at various times."""
    generator = torch.Generator().manual_seed(1)
    model = LanguageModel(config, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.25)
    return model.eval().to(dtype)


# --- the oracle: one token by hand ---


def slow_bend(logits: list[float], request: Request, before: Sequence[int]) -> list[float]:
    """Penalties and biases, token by token."""
    shaping, answer, bent = request.shaping, list(before[len(request.prompt) :]), list(logits)
    for token in set(before):
        bent[token] *= 1 / shaping.repetition_penalty if bent[token] > 0 else shaping.repetition_penalty
    for token in set(answer):
        bent[token] -= shaping.presence_penalty + shaping.frequency_penalty * answer.count(token)
    for token, bias in shaping.logit_bias.items():
        bent[token] += bias
    return bent


def slow_draw(logits: list[float], request: Request, uniform: float) -> tuple[int, float, float]:
    """Return the token, its log-probability under the distribution drawn from, and how near another token was."""
    sampling = request.sampling
    order = sorted(range(len(logits)), key=lambda token: -logits[token])
    if sampling.temperature == 0:
        return order[0], 0.0, logits[order[0]] - logits[order[1]]
    weights = [math.exp((value - logits[order[0]]) / sampling.temperature) for value in logits]
    probabilities = [weight / sum(weights) for weight in weights]
    likely = [probabilities[token] for token in order[: sampling.top_k]]
    reached = [share / sum(likely) for share in accumulate(likely)]
    edges = [sampling.top_p] if sampling.top_p < 1 else []
    count = next(rank for rank, share in enumerate(reached, start=1) if share >= sampling.top_p or rank == len(likely))
    least = max(likely[count - 1], request.shaping.min_p * likely[0])
    kept = [probability if probability >= least else 0.0 for probability in probabilities]
    bounds = [bound / sum(kept) for bound in accumulate(kept)]
    token = next(token for token, bound in enumerate(bounds) if uniform < bound)
    near = [abs(bound - uniform) for bound in bounds]
    near += [abs(share - edge) for share in reached for edge in edges]
    near += [abs(probability - least) for probability in probabilities if probability != least]
    return token, math.log(kept[token] / sum(kept)), min(near)


@dataclass
class Verdict:
    """What a schedule's check counted."""

    answers: int = 0
    tokens: int = 0
    near: list[float] = field(default_factory=list)
    far: list[float] = field(default_factory=list)
    preemptions: int = 0
    found: int = 0
    cancelled: int = 0

    def __iadd__(self, other: Verdict) -> Self:
        for name in ("answers", "tokens", "near", "far", "preemptions", "found", "cancelled"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


@torch.no_grad()
def check_answer(model: LanguageModel, request: Request, index: int, answer: Answer, verdict: Verdict) -> None:
    """Compare an answer, or what there is of one that was cancelled, with the plain pass."""
    prompt, exact = list(request.prompt), model.head_weight.dtype == torch.float64
    verdict.answers += 1
    if not answer.tokens:
        return
    room = min(request.sampling.max_new_tokens, model.config.max_positions - len(prompt))
    uniforms = draw_uniforms([request.seeds[index]], room)[0].tolist()
    ids = torch.tensor([[*prompt, *answer.tokens]])
    logits_TV = model(ids[:, :-1])[0, len(prompt) - 1 :]
    temperature = request.sampling.temperature or 1.0
    trainers = token_logprobs(logits_TV, ids[0, len(prompt) :], temperature=temperature)
    for place, token in enumerate(answer.tokens):
        before = [*prompt, *answer.tokens[:place]]
        bent = slow_bend(logits_TV[place].tolist(), request, before)
        expected, sampled, near = slow_draw(bent, request, uniforms[place])
        if token != expected:
            assert not exact, (request, place, token, expected)
            assert near < ROUNDING, (request, place, token, expected, near)
            verdict.near.append(near)
            return
        difference = abs(answer.logprobs[place] - trainers[place].item())
        assert difference < (1e-10 if exact else 2 * TOLERANCE)
        if difference > TOLERANCE:
            verdict.far.append(difference)
        assert answer.sampled_logprobs[place] == pytest.approx(sampled, abs=1e-10 if exact else ROUNDING)
        verdict.tokens += 1
    stopped = answer.tokens[-1] in request.stop_ids
    assert not request.stop_ids & set(answer.tokens[:-1])
    if answer.finish_reason == "stop":
        assert stopped
    elif answer.finish_reason == "length":
        assert not stopped
        assert len(answer.tokens) == room


# --- the schedules ---


def random_request(dice: random.Random, stems: Sequence[Sequence[int]]) -> Request:
    stem = dice.choice(stems)
    prompt = [*stem[: dice.randint(0, len(stem))], *(dice.randrange(5, VOCABULARY) for _ in range(dice.randint(0, 6)))]
    sampling = Sampling(
        temperature=dice.choice([0.0, 0.0, 0.7, 1.0, 1.6]),
        top_p=dice.choice([1.0, 1.0, 0.8]),
        top_k=dice.choice([1_000_000, 1_000_000, 7]),
        max_new_tokens=dice.randint(1, 24),
    )
    shaping = Shaping()
    if dice.random() < 0.3:
        shaping = Shaping(
            min_p=dice.choice([0.0, 0.1]),
            repetition_penalty=dice.choice([1.0, 1.3]),
            presence_penalty=dice.choice([0.0, 0.5]),
            frequency_penalty=dice.choice([0.0, 0.4]),
            logit_bias=dice.choice([{}, {7: 2.0, 9: -5.0}]),
        )
    return Request(
        prompt=prompt or [5],
        sampling=sampling,
        seeds=[dice.randrange(1000) for _ in range(dice.choice([1, 1, 2, 5]))],
        stop_ids=frozenset(dice.choice([(), (3, 4)])),
        shaping=shaping,
        tenant=dice.choice(["ann", "bob"]),
        remember=dice.random() < 0.9,
    )


def check_accounts(engine: ContinuousEngine) -> None:
    """Every reference is some row's, and every block is free, idle or referred to."""
    scheduler, pool = engine.scheduler, engine.pool
    held = [block for row in scheduler.decoding + scheduler.prefilling for block in row.blocks]
    assert sum(pool._references) == len(held)
    assert pool.num_used == len(set(held))
    assert (
        len({*pool._free, *pool._idle, *held}) == len(pool._free) + len(pool._idle) + len(set(held)) == pool.num_blocks
    )
    assert sorted(pool._block_of.values()) == sorted(pool._entries)


MakeEngine = Callable[[LanguageModel, EngineSettings], ContinuousEngine]


def run_schedule(model: LanguageModel, seed: int, make_engine: MakeEngine = ContinuousEngine) -> Verdict:
    """Requests arrive at random steps, some are cancelled; then every answer is checked."""
    dice = random.Random(seed)
    size = dice.choice([1, 2, 4, 8, 16])
    longest = -(-model.config.max_positions // size)
    settings = EngineSettings(
        block_size=size,
        num_blocks=longest + dice.choice([0, longest // 2, 4 * longest]),
        max_rows=(rows := dice.randint(1, 8)),
        step_tokens=rows + dice.choice([1, 5, 40]),
    )
    engine = make_engine(model, settings)
    stems = [[dice.randrange(5, VOCABULARY) for _ in range(20)] for _ in range(2)]
    coming = sorted((dice.randint(0, 25), order) for order in range(dice.randint(2, 7)))
    asked: dict[int, tuple[Request, list[Answer]]] = {}
    step, cancelled = 0, set()
    while coming or engine.busy:
        while coming and coming[0][0] <= step:
            coming.pop(0)
            request = random_request(dice, stems)
            asked[engine.submit(request)] = (request, [Answer() for _ in request.seeds])
        for new in engine.step():
            assert new.request not in cancelled
            asked[new.request][1][new.answer].add(new)
        check_accounts(engine)
        if asked and dice.random() < 0.04:
            cancelled.add(number := dice.choice(sorted(asked)))
            engine.cancel(number)
            check_accounts(engine)
        step += 1
    assert engine.pool.num_used == 0
    assert not engine._rows
    verdict = Verdict(
        preemptions=engine.scheduler.num_preemptions, found=engine.scheduler.num_found_tokens, cancelled=len(cancelled)
    )
    for number, (request, answers) in asked.items():
        for index, answer in enumerate(answers):
            assert answer.finish_reason or number in cancelled
            check_answer(model, request, index, answer, verdict)
    return verdict


def run_schedules(seeds: Sequence[int], dtype: torch.dtype, make_engine: MakeEngine = ContinuousEngine) -> Verdict:
    models = [make_model(config, dtype) for config in (LLAMA, GPT2, BANDED, T5_BIAS)]
    total = Verdict()
    for seed in seeds:
        total += run_schedule(models[seed % len(models)], seed, make_engine)
    print(
        f"{dtype}: {len(seeds)} schedules, {total.answers} answers, {total.tokens} tokens equal, "
        f"first differences within {ROUNDING}: {len(total.near)} {total.near}; log-probabilities more than {TOLERANCE} "
        f"from the plain pass: {len(total.far)} {total.far}; {total.preemptions} preemptions, "
        f"{total.found} tokens of prompts found in the cache, {total.cancelled} cancelled"
    )
    # The schedules must have met what they are there for.
    assert min(total.preemptions, total.found, total.cancelled) > len(seeds) // 10
    assert len(total.far) <= total.tokens // 10_000
    return total


@pytest.mark.parametrize("worth", [1, stems.WORTH])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_answers_are_those_of_isolated_runs_under_any_schedule(
    dtype: torch.dtype, worth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be what texts begin with together read once for all of them, or in each one's lane."""
    monkeypatch.setattr(stems, "WORTH", worth)
    assert run_schedules(range(100), dtype).tokens > 1000


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_answers_are_those_of_isolated_runs_under_a_thousand_schedules(dtype: torch.dtype) -> None:
    assert run_schedules(range(1000), dtype).tokens > 10_000
