"""Guessed tokens: answers are those without guesses, distributions the model's, and guessing stops where it costs."""

from __future__ import annotations

import copy
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from tests.generation.small_models import make_model
from tests.generation.test_schedules import LLAMA, run_schedules
from torch import Tensor

from sanbai.foundation.errors import ModelError, UsageError
from sanbai.generation import stems
from sanbai.generation.answering import answer_all
from sanbai.generation.engine import ContinuousEngine, EngineSettings, Speculation
from sanbai.generation.request import Request, Shaping
from sanbai.generation.row import Row
from sanbai.generation.sampling import Sampling
from sanbai.generation.speculation import Counts, Experience, Gauge, NgramProposer, Speculator
from sanbai.generation.step_costs import StepCosts
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel
from sanbai.model.transformer import Inputs

TINY = ModelConfig(
    vocab_size=9, num_layers=1, width=16, num_heads=2, num_kv_heads=1, head_width=8, feed_forward_width=16,
    max_positions=32,
)  # fmt: skip


class Always(Gauge):
    """Guesses whatever it costs."""

    def best(self, experience: Experience, rows: int, most: int) -> int:
        return min(most, 1 + rows % 4)


def speculator_of(engine: ContinuousEngine) -> Speculator:
    assert engine.speculator is not None
    return engine.speculator


def always(
    model: LanguageModel,
    settings: EngineSettings,
    speculation: Speculation = "ngram",
    draft: LanguageModel | None = None,
) -> ContinuousEngine:
    """Return an engine that guesses in every step without prompts."""
    engine = ContinuousEngine(model, settings.model_copy(update={"speculation": speculation}), draft=draft)
    speculator_of(engine).gauge = Always()
    return engine


def disturbed(model: LanguageModel, strength: float) -> LanguageModel:
    """Return a draft that is right more or less often."""
    draft, generator = copy.deepcopy(model), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in draft.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * strength)
    return draft


# --- the same answers ---


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("speculation", ["ngram", "draft"])
@pytest.mark.parametrize("worth", [1, stems.WORTH])
def test_answers_are_those_without_guesses_under_any_schedule(
    dtype: torch.dtype, speculation: Speculation, worth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stems, "WORTH", worth)
    total = Counts()

    def make_engine(model: LanguageModel, settings: EngineSettings) -> ContinuousEngine:
        draft = disturbed(model, 0.05) if speculation == "draft" else None
        engine = always(model, settings, speculation, draft)
        counts.append(speculator_of(engine).counts)
        return engine

    counts: list[Counts] = []
    assert run_schedules(range(40), dtype, make_engine).tokens > 500
    for each in counts:
        total.guesses, total.right = total.guesses + each.guesses, total.right + each.right
    print(f"{speculation}: {total.right} of {total.guesses} guesses right")
    assert total.guesses > 200
    assert 0.05 < total.right / total.guesses < 0.95


@pytest.mark.parametrize("changes", [{}, {"temperature": 0.7, "top_p": 0.8}], ids=["all", "top_p"])
def test_drawn_answers_have_the_models_distribution(changes: dict[str, float]) -> None:
    model, number, sampling = make_model(TINY).double(), 6000, Sampling(max_new_tokens=4, **changes)
    settings = EngineSettings(num_blocks=1024, block_size=4, max_rows=500, step_tokens=4000)
    engine = always(model, settings, "draft", disturbed(model, 0.1))
    (answers,) = answer_all(engine, [Request(prompt=[3, 1], sampling=sampling, seeds=range(number))])
    found = Counter(tuple(answer.tokens[1:]) for answer in answers)  # the first token never was a guess
    counts = speculator_of(engine).counts
    assert 0.2 < counts.right / counts.guesses < 0.95

    conditional: dict[tuple[int, ...], list[float]] = {}
    for before in itertools.chain.from_iterable(itertools.product(range(9), repeat=length) for length in range(4)):
        logits = model(torch.tensor([[3, 1, *before]]))[0, -1] / sampling.temperature
        weights = [math.exp(value) for value in logits.tolist()]
        shares = [weight / sum(weights) for weight in weights]
        order = sorted(range(9), key=lambda token: -shares[token])
        kept = order[: next(n for n in range(1, 10) if n == 9 or sum(shares[t] for t in order[:n]) >= sampling.top_p)]
        conditional[before] = [shares[token] * (token in kept) / sum(shares[t] for t in kept) for token in range(9)]
    expected: Counter[tuple[int, ...]] = Counter()
    for tokens in itertools.product(range(9), repeat=4):
        expected[tokens[1:]] += number * math.prod(conditional[tokens[:n]][tokens[n]] for n in range(4))
    assert not [tokens for tokens in found if expected[tokens] == 0]
    common = [tokens for tokens in expected if expected[tokens] >= 5]
    pairs = [(found[tokens], expected[tokens]) for tokens in common]
    pairs.append((number - sum(seen for seen, _ in pairs), number - sum(mean for _, mean in pairs)))
    assert len(pairs) > 50
    assert chisquare(*zip(*pairs, strict=True)).pvalue > 0.01


def test_a_draft_model_that_is_the_model_is_never_wrong_and_reads_every_token_once() -> None:
    model = make_model(TINY).double()
    draft, read = copy.deepcopy(model), 0
    embed = draft.trunk.embed

    def counted(x_BTE: Tensor, positions_BT: Tensor, inputs: Inputs) -> Tensor:
        nonlocal read
        read += len(x_BTE)
        return embed(x_BTE, positions_BT, inputs)

    draft.trunk.embed = counted  # type: ignore[method-assign]
    engine = always(model, EngineSettings(num_blocks=64, block_size=4, max_rows=4, step_tokens=16), "draft", draft)
    request = Request(prompt=[3, 1, 2], sampling=Sampling(top_p=0.9, max_new_tokens=24), seeds=[1, 2])
    (answers,) = answer_all(engine, [request])
    counts = speculator_of(engine).counts
    assert counts.right == counts.guesses > 20
    assert counts.steps < 24
    # The last guess of each step is read in the next one; behind the last step nothing is.
    assert read <= sum(3 + len(answer.tokens) for answer in answers)


# --- what is not guessed for ---


def test_nothing_is_guessed_where_each_token_bends_what_follows() -> None:
    engine = always(make_model(LLAMA), EngineSettings(num_blocks=64, block_size=4, max_rows=8, step_tokens=32))
    greedy = Sampling(temperature=0.0, max_new_tokens=12)
    plain = {"prompt": [7, 8] * 6, "sampling": greedy, "seeds": [1]}
    bent = [
        Request(**plain, mask=lambda _: torch.ones(61, dtype=torch.bool)),  # type: ignore[arg-type]
        Request(**plain, shaping=Shaping(presence_penalty=0.1)),  # type: ignore[arg-type]
        Request(**plain, shaping=Shaping(logit_bias={5: 1.0})),  # type: ignore[arg-type]
        Request(prompt=[7, 8] * 6, sampling=Sampling(max_new_tokens=1), seeds=[1]),
    ]
    answer_all(engine, bent)
    assert speculator_of(engine).counts == Counts()
    answer_all(engine, [Request(**plain)])  # type: ignore[arg-type]
    assert speculator_of(engine).counts.guesses > 0


def test_draft_models_that_do_not_fit_are_refused() -> None:
    model, few = make_model(LLAMA), EngineSettings(num_blocks=8)
    guessing = few.model_copy(update={"speculation": "draft"})
    with pytest.raises(UsageError, match='speculation is "off" and a draft model was given'):
        ContinuousEngine(model, few, draft=model)
    with pytest.raises(UsageError, match='speculation is "draft" and no draft model was given'):
        ContinuousEngine(model, guessing)
    with pytest.raises(ModelError, match="a draft model of 9 tokens for one of 61"):
        ContinuousEngine(model, guessing, draft=make_model(TINY))


# --- guesses of runs that came before ---


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=30), st.integers(1, 20), st.integers(1, 6))
def test_guesses_are_what_a_slow_search_finds(ids: list[int], split: int, count: int) -> None:
    proposer = NgramProposer()
    sampling = Sampling(max_new_tokens=64)
    row = Row(
        Request(prompt=ids[:split], sampling=sampling, seeds=[1]), number=0, answer=0, order=0, limit=64, uniforms=[]
    )
    proposer.propose([(row, count)])  # the index grows with the text
    row.draft = []
    row.ids = list(ids)
    proposer.propose([(row, count)])
    assert row.draft == slow_guess(ids, count)


def slow_guess(ids: Sequence[int], count: int) -> list[int]:
    for size in (4, 3, 2):
        for end in range(len(ids) - 1, size - 1, -1):
            if ids[end - size : end] == ids[-size:]:
                guessed = list(ids)
                for _ in range(count):
                    guessed.append(guessed[end + len(guessed) - len(ids)])
                return guessed[len(ids) :]
    return []


# --- whether it pays ---


def test_costs_of_steps_are_found_through_noise() -> None:
    costs, dice = StepCosts(), torch.Generator().manual_seed(1)
    truth = (3e-3, 2e-4, 8e-4, 3e-4)
    for step in range(300):
        rows = 1 + step % 7
        guessing = step % 3 if rows > 1 else 0
        guesses = guessing * (1 + step % 5)
        seconds = sum(each * count for each, count in zip(truth, (1, rows, guessing, guesses), strict=True))
        noise = 1 + 0.05 * float(torch.rand(1, generator=dice)) + 3 * (step % 17 == 0)  # held up now and then
        costs.see(rows=rows, guessing=guessing, guesses=guesses, seconds=seconds * noise)
    assert costs.plain(4) == pytest.approx(truth[0] + 4 * truth[1], rel=0.1)
    assert costs.a_row == pytest.approx(truth[2], rel=0.3)
    assert costs.a_guess == pytest.approx(truth[3], rel=0.3)


@dataclass
class Outcome:
    """What a made-up engine came to."""

    slowdown: float
    guesses: int


def simulate(right: float, *, rows: int, a_row: float, a_guess: float, tokens: int = 400) -> Outcome:
    """Let a gauge decide for answers of `tokens` tokens, one batch after another; a plain step takes 1 + 0.1 rows."""
    gauge, dice = Gauge(), torch.Generator().manual_seed(3)
    plain, taken, drawn, guesses = 1 + 0.1 * rows, 0.0, 0, 0
    for _ in range(5):
        experiences, left = [Experience() for _ in range(rows)], rows * tokens
        while left > 0:
            drafted: list[tuple[Experience, int, int]] = []
            for experience in experiences:
                if count := gauge.best(experience, rows, 8):
                    hits = int((torch.rand(count, generator=dice) < right).long().cumprod(0).sum())
                    drafted.append((experience, count, hits))
            if not drafted and gauge.may_try:
                drafted.append((experiences[0], 2, 0 if right < 0.5 else 2))
            seconds = plain + a_row * len(drafted) + a_guess * sum(count for _, count, _ in drafted)
            gauge.see(drafted, rows, seconds)
            taken += seconds
            guesses += sum(count for _, count, _ in drafted)
            drawn += rows + sum(hits for *_, hits in drafted)
            left -= rows + sum(hits for *_, hits in drafted)
    return Outcome(slowdown=taken / (drawn / rows * plain), guesses=guesses)


@pytest.mark.parametrize("rows", [1, 8, 64])
@pytest.mark.parametrize("a_guess", [0.02, 0.1, 0.5])
def test_guesses_that_are_wrong_stop_before_they_cost_a_twentieth(rows: int, a_guess: float) -> None:
    assert 1.0 <= simulate(0.0, rows=rows, a_row=0.2, a_guess=a_guess).slowdown < 1.05
    assert simulate(0.1, rows=rows, a_row=0.2, a_guess=a_guess).slowdown < 1.05


def test_guesses_that_are_right_go_on() -> None:
    assert simulate(0.95, rows=1, a_row=0.2, a_guess=0.05).slowdown < 0.4
    assert simulate(0.9, rows=8, a_row=0.02, a_guess=0.02).slowdown < 0.6
