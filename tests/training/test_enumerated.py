"""A language model of four tokens and answers of at most four: everything that can be said is listed, nothing sampled.

Oracle: the objective itself, E[score - penalty - β Σ KL], as a sum over all answers, and its gradient by autograd.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from tests.training.conftest import Open
from torch import Tensor

from sanbai.data.packing import EncodedItems
from sanbai.foundation.device import Compute
from sanbai.foundation.seeds import torch_generator
from sanbai.generation.answering import Completion
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.training import ppo
from sanbai.training.buffer import Buffer, Gathered
from sanbai.training.gradients import differentiate
from sanbai.training.ppo import PpoRecipe, train_ppo, weigh
from sanbai.training.rollouts import Readings, Rollouts, read

END, LONGEST = 3, 4
PROMPT = [0, 2]
#: Every answer: its first end is its last token, and one without an end is cut at the longest length.
ANSWERS = [
    answer
    for length in range(1, LONGEST + 1)
    for answer in itertools.product(range(4), repeat=length)
    if END not in answer[:-1] and (answer[-1] == END or length == LONGEST)
]
CONFIG = ModelConfig(
    vocab_size=4,
    num_layers=2,
    width=32,
    num_heads=2,
    num_kv_heads=2,
    head_width=16,
    feed_forward_width=64,
    max_positions=8,
    initial_std=0.2,
)
SCORES = torch.randn(len(ANSWERS), dtype=torch.float64, generator=torch_generator(3, "scores"))


def everything_said() -> Rollouts:
    reasons = ["stop" if answer[-1] == END else "length" for answer in ANSWERS]
    completions = [
        Completion(list(answer), [0.0] * len(answer), [0.0] * len(answer), reason)  # type: ignore[arg-type]
        for answer, reason in zip(ANSWERS, reasons, strict=True)
    ]
    return Rollouts([PROMPT] * len(ANSWERS), completions)


def token_logprobs_of(model: LanguageModel, temperature: float) -> list[Tensor]:
    """log π of each answer's tokens, each answer alone; carries the gradient."""
    found = []
    for answer in ANSWERS:
        logits_TV = model(torch.tensor([[*PROMPT, *answer]]))[0] / temperature
        logprob_TV = torch.log_softmax(logits_TV, -1)
        found.append(torch.stack([logprob_TV[len(PROMPT) - 1 + t, token] for t, token in enumerate(answer)]))
    return found


def test_all_answers_are_listed_once_and_their_probabilities_add_up_to_one() -> None:
    assert len(ANSWERS) == len(set(ANSWERS)) == 3**0 + 3**1 + 3**2 + 4 * 3**3
    all_draws = itertools.product(range(4), repeat=LONGEST)
    assert {draw[: draw.index(END) + 1] if END in draw else draw for draw in all_draws} == set(ANSWERS)
    model = LanguageModel(CONFIG, torch_generator(0, "policy")).double()
    total = math.fsum(logprob_T.sum().exp().item() for logprob_T in token_logprobs_of(model, 0.7))
    assert total == pytest.approx(1.0, abs=1e-12)


def expected_returns(logprobs: Sequence[Tensor], reward_of: Sequence[Sequence[float]]) -> list[list[float]]:
    """The true value before each token: the mean, over how an answer may go on, of the rewards still to come."""
    probability = [math.exp(logprob_T.sum().item()) for logprob_T in logprobs]
    rows = list(zip(ANSWERS, probability, reward_of, strict=True))

    def value(prefix: tuple[int, ...]) -> float:
        going_on = [(p, sum(r[len(prefix) :])) for answer, p, r in rows if answer[: len(prefix)] == prefix]
        return math.fsum(p * to_come for p, to_come in going_on) / math.fsum(p for p, _ in going_on)

    return [[value(answer[:t]) for t in range(len(answer))] for answer in ANSWERS]


@pytest.mark.parametrize(
    ("critic", "gae_lambda", "temperature"),
    [("zero", 1.0, 1.0), ("random", 1.0, 0.7), ("exact", 0.95, 0.7), ("exact", 0.0, 1.0)],
)
def test_the_policy_gradient_is_that_of_the_enumerated_objective(
    compute: Compute, critic: str, gae_lambda: float, temperature: float
) -> None:
    """E over all answers of the loss's gradient = -∇ E[score - penalty - β Σ KL], times what whitening divides by.

    Whitening's mean is a constant added to every token's advantage, which the expectation does not see; its scale is
    one known factor. With λ = 1 any critic, below 1 the true one, leaves the gradient unbiased.
    """
    kl_coef, penalty = 0.3, 0.7
    recipe = PpoRecipe(
        kl_coef=kl_coef, unfinished_penalty=penalty, gae_lambda=gae_lambda, temperature=temperature, ptx_coef=0.0
    )
    policy, reference = (LanguageModel(CONFIG, torch_generator(seed, "policy")).double() for seed in (0, 1))
    value = ScalarModel.from_language_model(policy, torch_generator(2, "value")).double()
    rollouts, everyone = everything_said(), list(range(len(ANSWERS)))

    # The oracle.
    logprobs = token_logprobs_of(policy, temperature)
    reference_logprobs = [logprob_T.detach() for logprob_T in token_logprobs_of(reference, temperature)]
    cut_N = torch.tensor([float(answer[-1] != END) for answer in ANSWERS], dtype=torch.float64)
    outcome_N = SCORES - penalty * cut_N
    probability_N = torch.stack([logprob_T.sum().exp() for logprob_T in logprobs])
    kl_N = torch.stack([(now - then).sum() for now, then in zip(logprobs, reference_logprobs, strict=True)])
    objective = (probability_N * (outcome_N - kl_coef * kl_N)).sum()
    exact = torch.autograd.grad(objective, list(policy.parameters()), materialize_grads=True)

    # What we compute.
    readings = read(
        rollouts, [everyone], policy=policy, reference=reference, value=value, temperature=temperature, compute=compute
    )
    mask_NR = rollouts.mask()
    values_NR = torch.zeros_like(readings.value_NR)
    if critic == "random":
        values_NR = readings.value_NR
    elif critic == "exact":
        rewards = [(-kl_coef * (now - then)).tolist() for now, then in zip(logprobs, reference_logprobs, strict=True)]
        for row, outcome in zip(rewards, outcome_N.tolist(), strict=True):
            row[-1] += outcome
        for row, found in enumerate(expected_returns(logprobs, rewards)):
            values_NR[row, : len(found)] = torch.tensor(found, dtype=torch.float64)
    readings = Readings(readings.logprob_NR, readings.reference_logprob_NR, values_NR, readings.entropy_NR)
    buffer = Buffer()
    experience = weigh(buffer.fill(Gathered(rollouts, readings, SCORES)), recipe, kl_coef=recipe.kl_coef)
    advantage_M = (experience.return_NR - values_NR)[mask_NR.bool()]
    scale = 1 / math.sqrt(advantage_M.var(correction=0).item() + 1e-8)

    expectation = [torch.zeros_like(tensor) for tensor in exact]
    for row, answer in enumerate(ANSWERS):
        parts = ppo._practice_parts(policy, value, experience, [[row]], recipe, compute, buffer)
        gradient = differentiate({"policy": parts["policy"]})["policy"].gradient  # a mean over the answer's tokens
        for total, tensor in zip(expectation, gradient, strict=True):
            total.add_(tensor, alpha=probability_N[row].item() * len(answer))
    norm = math.sqrt(sum(tensor.square().sum().item() for tensor in exact))
    assert norm > 0.05
    for found, tensor in zip(expectation, exact, strict=True):
        torch.testing.assert_close(found / scale, -tensor, rtol=1e-9, atol=1e-10)


def total_variation(first: Sequence[float], second: Sequence[float]) -> float:
    return sum(abs(a - b) for a, b in zip(first, second, strict=True)) / 2


def probabilities(model: LanguageModel) -> list[float]:
    with torch.no_grad():
        return [logprob_T.sum().exp().item() for logprob_T in token_logprobs_of(model, 1.0)]


def optimum(reference: Sequence[float], kl_coef: float) -> list[float]:
    """π*(y) = ρ(y) exp(score(y) / β) / Z."""
    weights = [p * math.exp(score / kl_coef) for p, score in zip(reference, SCORES.tolist(), strict=True)]
    return [weight / math.fsum(weights) for weight in weights]


@pytest.mark.parametrize("staleness", [0, 1])
def test_practice_reaches_the_optimum_of_reward_less_kl(
    open_stage: Open, items: EncodedItems, compute: Compute, staleness: int
) -> None:
    """`train_ppo` as it is, by sampling; the averaged weights of the last iteration against the closed form."""
    recipe = PpoRecipe(
        num_iterations=200,
        batch_prompts=512,
        minibatch_prompts=512,
        max_new_tokens=LONGEST,
        rollout_rows=512,
        learning_rate=3e-3,
        value_learning_rate=3e-3,
        warmup_iterations=0,
        kl_coef=1.0,
        value_clip=100.0,
        unfinished_penalty=0.0,
        ptx_coef=0.0,
        ema_decay=0.97,
        judge_iterations=200,
        kl_budget=1000.0,
        checkpoint_iterations=1000,
        staleness=staleness,
    )
    score_of = dict(zip(ANSWERS, SCORES.tolist(), strict=True))
    newest = itertools.count()  # the judge likes the last weights best, so they are kept
    before, policy = (LanguageModel(CONFIG, torch_generator(0, "policy")) for _ in range(2))
    train_ppo(
        open_stage(),
        recipe,
        compute,
        policy=policy,
        value=ScalarModel.from_language_model(policy, torch_generator(2, "value")),
        reward=lambda _, responses: [score_of[tuple(response)] for response in responses],
        judge=lambda _, responses: [float(next(newest))] * len(responses),
        tokenizer=SimpleNamespace(reserved=SimpleNamespace(ends=lambda: {END}, pad=0)),  # type: ignore[arg-type]
        prompts=[PROMPT],
        judge_prompts=[PROMPT],
        pretraining=items,
        save=lambda *_: None,  # no tokenizer has four tokens
    )
    reference, found = probabilities(before), probabilities(policy)
    assert total_variation(reference, optimum(reference, 1.0)) > 0.3  # there is a way to go
    assert total_variation(found, optimum(reference, 1.0)) < 0.05
    assert total_variation(found, optimum(reference, 2.0)) > 0.1  # and it ends at this β
