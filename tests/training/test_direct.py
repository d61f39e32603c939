"""The synthetic labelers are those of test_reward.py; what a policy has learnt is read off its probabilities."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tests.training.conftest import TRADES, Open, assert_same_bits
from tests.training.test_recipes import without_effect
from tests.training.test_reward import UTILITY, labeled, question
from torch import Tensor

from sanbai.data.rankings import Ranking
from sanbai.foundation.device import Compute
from sanbai.foundation.stage import Stage
from sanbai.generation.answering import Completion
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import load_language_model
from sanbai.model.transformer import Transformer
from sanbai.text.chat_template import encode_prompt
from sanbai.text.tokenizer import Tokenizer
from sanbai.training import direct
from sanbai.training.direct import DirectRecipe, answer_logprobs, num_direct_steps, train_direct
from sanbai.training.optimizer import OptimizerRecipe
from sanbai.training.ranked_prompts import collect_ranked_prompts
from sanbai.training.rollouts import Rollouts, lay_out, response_logprobs
from sanbai.training.trees import Tree

RECIPE = DirectRecipe(
    batch_prompts=8,
    micro_batch_tokens=400,
    learning_rate=3e-3,
    warmup_steps=3,
    validation_share=0.2,
    num_sampled_prompts=4,
    max_prompt_tokens=32,
    max_response_tokens=24,
    evaluate_steps=5,
    checkpoint_steps=3,
)
METHODS: dict[str, dict[str, Any]] = {
    "dpo": {},
    "ipo": {"beta": 0.5},
    "simpo": {"beta": 4.0, "margin": 1.0},
    "kto": {},
}


def of_method(method: str, **changes: Any) -> DirectRecipe:
    return DirectRecipe.model_validate({**RECIPE.model_dump(), "method": method, **METHODS[method], **changes})


def start(
    stage: Stage,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    rankings: Sequence[Ranking],
    recipe: DirectRecipe = RECIPE,
) -> dict[str, Any]:
    return train_direct(stage, recipe, compute, policy=copy.deepcopy(model), tokenizer=tokenizer, rankings=rankings)


def rows_of(stage: Stage) -> list[dict[str, float]]:
    return [json.loads(line) for line in (stage.run.folder / "metrics.jsonl").read_text().splitlines()]


def trade_logratios(stage: Stage, compute: Compute, model: LanguageModel, tokenizer: Tokenizer) -> list[float]:
    """How much likelier each trade's answer has become to a prompt that nobody ranked."""
    prompt = tuple(encode_prompt(tokenizer, question(1000)))
    tree = Tree(prompt, tuple((*tokenizer.encode(f"a {trade}"), tokenizer.reserved.end) for trade in TRADES))
    with torch.no_grad():
        after_N, before_N = (
            answer_logprobs(each, [tree], compute) for each in (load_language_model(stage.folder), model)
        )
    return (after_N - before_N).tolist()


@pytest.mark.parametrize("method", METHODS)
def test_the_policy_ranks_as_the_labelers_do_and_comes_near_their_noise_ceiling(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, method: str
) -> None:
    stage = open_stage()
    metrics = start(stage, compute, model, tokenizer, labeled(200), of_method(method))
    pairs = [(UTILITY[a], UTILITY[b]) for a in TRADES for b in TRADES if UTILITY[a] > UTILITY[b]]
    ceiling = sum(1 / (1 + math.exp(b - a)) for a, b in pairs) / len(pairs)
    assert metrics["validation_accuracy"] > 0.9 * ceiling
    ratios = trade_logratios(stage, compute, model, tokenizer)
    assert ratios == sorted(ratios)
    first = rows_of(stage)[0]
    assert metrics["validation_loss"] < first["validation_loss"]
    assert metrics["kl"] > first["kl"] == 0.0


def test_rankings_by_coin_toss_teach_nothing(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    """The control: held-out accuracy stays at one half."""
    chance = random.Random(3)
    tossed = [
        Ranking(each.id, each.messages, each.responses, tuple((i,) for i in chance.sample(range(4), 4)), "coin")
        for each in labeled(200)
    ]
    metrics = start(open_stage(), compute, model, tokenizer, tossed)
    assert abs(metrics["validation_accuracy"] - 0.5) < 3 * 0.5 / math.sqrt(2 * metrics["num_validation_prompts"])


def test_rankings_turned_round_teach_the_opposite(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    """The control: the same answers, the buckets from worst to best."""
    turned = [
        Ranking(each.id, each.messages, each.responses, each.buckets[::-1], each.labeler) for each in labeled(200)
    ]
    stage = open_stage()
    start(stage, compute, model, tokenizer, turned)
    ratios = trade_logratios(stage, compute, model, tokenizer)
    assert ratios == sorted(ratios, reverse=True)


def test_trap_25_killed_it_ends_in_the_same_bits(
    outcome_after_kills: Callable[..., dict[str, Tensor]], compute: Compute, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    rankings = labeled(60)
    rows: dict[str, list[dict[str, float]]] = {}

    def train(stage: Stage) -> None:
        start(stage, compute, model, tokenizer, rankings, of_method("kto"))
        rows[stage.folder.parent.name] = rows_of(stage)

    killed, undisturbed = outcome_after_kills(train, "killed", (2, 5)), outcome_after_kills(train, "undisturbed")
    assert_same_bits(killed, undisturbed)
    assert rows["killed"] == rows["undisturbed"]


def test_no_bit_depends_on_the_number_of_threads(
    outcome_after_kills: Callable[..., dict[str, Tensor]],
    threads: Callable[[int], None],
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
) -> None:
    outcomes = []
    for number in (1, 3):
        threads(number)
        train = lambda stage: start(stage, compute, model, tokenizer, labeled(24), of_method("kto"))  # noqa: E731
        outcomes.append(outcome_after_kills(train, f"{number} threads"))
    assert_same_bits(*outcomes)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_trap_10_before_the_first_step_policy_and_reference_are_one_to_the_bit(
    open_stage: Open, model: LanguageModel, tokenizer: Tokenizer, precision: str
) -> None:
    compute = Compute.model_validate({"num_threads": 1, "precision": precision})
    stage = open_stage()
    start(stage, compute, model, tokenizer, labeled(24))
    before, first = rows_of(stage)[:2]
    assert before["step"] == 0
    assert before["kl"] == before["validation_chosen_logratio"] == before["validation_rejected_logratio"] == 0.0
    assert first["step"] == 1
    assert first["chosen_logratio"] == first["rejected_logratio"] == first["margin"] == 0.0
    assert first["accuracy"] == 0.5
    assert first["loss"] == pytest.approx(math.log(2), rel=1e-6)


def test_answers_behind_one_prompt_have_the_log_probabilities_of_separate_passes(
    compute: Compute, model: LanguageModel
) -> None:
    trees = [
        Tree((0, 3, 41, 6, 4), ((50, 51, 6), (52,), (53, 54, 55, 56, 6))),
        Tree((0, 3, 42, 42, 42, 6, 4), ((52, 6), (57, 57, 57, 6))),
    ]
    found_N = answer_logprobs(model, trees, compute)
    rows = [(tree.prompt, answer) for tree in trees for answer in tree.answers]
    by_hand = []
    for prompt, answer in rows:
        logits_BTV = model(torch.tensor([[*prompt, *answer]]))
        logprob_TV = logits_BTV[0].double().log_softmax(-1)
        by_hand.append(sum(logprob_TV[len(prompt) + place - 1, token].item() for place, token in enumerate(answer)))
    assert found_N.tolist() == pytest.approx(by_hand, abs=1e-4)
    completions = [Completion(list(answer), [], [], "stop") for _, answer in rows]
    layout = lay_out(Rollouts([prompt for prompt, _ in rows], completions), range(len(rows)), context=64)
    separate_N = response_logprobs(model, layout, temperature=1.0, compute=compute).sum(1)
    weight_N = torch.linspace(-1, 1, len(rows))
    parameters = list(model.parameters())
    gradients = [torch.autograd.grad((each * weight_N).sum(), parameters) for each in (found_N, separate_N)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_trap_20_every_prompt_and_every_different_answer_is_read_once_an_epoch_by_each_model(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rankings = labeled(20)
    twice = Ranking("again", question(0), rankings[0].responses, ((0, 1, 2), (3,)), "another")
    prompts_read = answers_read = 0
    forward = Transformer.forward

    def counting(self: Transformer, tokens_BT: Tensor, **arguments: Any) -> Tensor:
        nonlocal prompts_read, answers_read
        if "branches_BT" in arguments:
            prompts_read += int(arguments["segments_BT"].max(1).values.sum())
            branches_BT = arguments["branches_BT"]
            answers_read += int(((branches_BT[:, 1:] > branches_BT[:, :-1]) & (branches_BT[:, 1:] > 0)).sum())
        return forward(self, tokens_BT, **arguments)

    monkeypatch.setattr(Transformer, "forward", counting)
    recipe = RECIPE.model_copy(update={"validation_share": 0.0})
    start(open_stage(), compute, model, tokenizer, [*rankings, twice], recipe)
    assert prompts_read == 2 * 20  # policy and reference
    assert answers_read == 2 * 20 * 4


def test_trap_15_the_outcome_does_not_depend_on_the_micro_batch(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    losses = []
    for max_tokens in (50, 100_000):
        stage = open_stage(str(max_tokens))
        recipe = of_method("kto", micro_batch_tokens=max_tokens)
        start(stage, compute, model, tokenizer, labeled(24), recipe)
        losses.append([row["loss"] for row in rows_of(stage) if "loss" in row])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def noted_references(monkeypatch: pytest.MonkeyPatch) -> list[LanguageModel]:
    """Return a list that gets the reference of each evaluation from now on."""
    references: list[LanguageModel] = []
    validate = direct._validate

    def spy(policy: LanguageModel, reference: LanguageModel, *rest: Any, **named: Any) -> dict[str, float]:
        references.append(reference)
        return validate(policy, reference, *rest, **named)

    monkeypatch.setattr(direct, "_validate", spy)
    return references


def test_trap_23_the_reference_never_moves(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    references = noted_references(monkeypatch)
    stage = open_stage()
    start(stage, compute, model, tokenizer, labeled(24))
    assert len(set(map(id, references))) == 1
    assert_same_bits(dict(references[-1].named_parameters()), dict(model.named_parameters()))
    trained = dict(load_language_model(stage.folder).named_parameters())
    assert any(not torch.equal(trained[name], weight) for name, weight in model.named_parameters())


def test_the_numbers_of_a_step_are_means_over_its_pairs(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second step's, recomputed pair by pair from the policy as it was before it."""
    policies: list[LanguageModel] = []
    prefer = direct._prefer

    def spy(policy: LanguageModel, *rest: Any, **named: Any) -> dict[str, float]:
        policies.append(copy.deepcopy(policy))
        return prefer(policy, *rest, **named)

    monkeypatch.setattr(direct, "_prefer", spy)
    recipe = RECIPE.model_copy(update={"validation_share": 0.0, "batch_prompts": 6, "num_epochs": 2, "beta": 0.3})
    rankings = labeled(6)
    stage = open_stage()
    start(stage, compute, model, tokenizer, rankings, recipe)
    second = rows_of(stage)[1]
    limits = {"max_prompt_tokens": 32, "max_response_tokens": 24}
    found: dict[str, list[float]] = {"margin": [], "accuracy": [], "chosen_logprob": [], "chosen_logratio": []}
    for element in collect_ranked_prompts(tokenizer, rankings, **limits):
        with torch.no_grad():
            now, then = (answer_logprobs(each, [element.tree], compute).tolist() for each in (policies[1], model))
        for better, worse in zip(*element.preference_KK.nonzero(), strict=True):
            gained = [now[answer] - then[answer] for answer in (better, worse)]
            found["margin"].append(0.3 * (gained[0] - gained[1]))
            found["accuracy"].append(float(gained[0] > gained[1]))
            found["chosen_logprob"].append(now[better])
            found["chosen_logratio"].append(gained[0])
    for name, values in found.items():
        assert second[name] == pytest.approx(sum(values) / len(values), abs=1e-4), name


def test_ktos_baseline_is_of_answers_under_the_prompt_before_them(
    compute: Compute, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    elements = collect_ranked_prompts(tokenizer, labeled(3), max_prompt_tokens=32, max_response_tokens=24)
    recipe = of_method("kto")

    def logratio(place: int) -> float:
        tree = Tree(elements[place].tree.prompt, (elements[(place + 1) % 3].tree.answers[0],))
        return (answer_logprobs(other, [tree], compute) - answer_logprobs(model, [tree], compute)).item()

    mean = sum(logratio(place) for place in range(3)) / 3
    signed = [direct._baseline(*pair, elements, recipe, compute).item() for pair in ((other, model), (model, other))]
    assert signed == pytest.approx([max(0.0, mean), max(0.0, -mean)], abs=1e-4)
    assert direct._baseline(other, model, elements[:1], recipe, compute).item() == 0.0
    assert direct._baseline(other, model, elements, RECIPE, compute).item() == 0.0


def test_a_field_of_another_method_is_refused() -> None:
    with pytest.raises(ValidationError, match='margin is of method = "simpo" alone, and method is "dpo"'):
        DirectRecipe(margin=0.5)
    with pytest.raises(ValidationError, match="label_smoothing"):
        DirectRecipe(method="ipo", label_smoothing=0.1)
    with pytest.raises(ValidationError, match='learn_from is of method = "kto" alone'):
        DirectRecipe(learn_from="thumbs")
    with pytest.raises(ValidationError, match="batch_prompts of 2"):
        DirectRecipe(method="kto", batch_prompts=1)
    assert DirectRecipe.model_validate(DirectRecipe(method="simpo", margin=0.5).model_dump()).margin == 0.5


def test_the_number_of_steps_covers_every_prompt_once_an_epoch() -> None:
    assert [num_direct_steps(RECIPE, number) for number in (8, 9, 16)] == [1, 2, 2]
    assert num_direct_steps(RECIPE.model_copy(update={"num_epochs": 2}), 9) == 3


#: Fields that must not change what is learned: they cut the same work differently or say when to save.
NEUTRAL = ["checkpoint_steps", "micro_batch_tokens"]
OTHER: dict[str, Any] = {
    "method": "ipo",
    "beta": 0.7,
    "label_smoothing": 0.2,
    "num_epochs": 2,
    "batch_prompts": 5,
    "learning_rate": 1e-4,
    "warmup_steps": 0,
    "validation_share": 0.5,
    "num_sampled_prompts": 1,
    "max_prompt_tokens": 8,
    "max_response_tokens": 3,
    "evaluate_steps": 1,
    "optimizer": OptimizerRecipe(max_grad_norm=0.01),
}


def test_trap_28_every_field_of_the_recipe_changes_the_run(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    # The first answer of each is longer than the others: a limit can tell them apart.
    rankings = [
        Ranking(one.id, one.messages, (one.responses[0] * 2, *one.responses[1:]), one.buckets, one.labeler)
        for one in labeled(20)
    ]

    def trace_with(method: str) -> Callable[[str, Any], str]:
        def trace(name: str, recipe: DirectRecipe) -> str:
            stage = open_stage(f"{method} {name}")
            start(stage, compute, model, tokenizer, rankings, recipe)
            return (stage.run.folder / "metrics.jsonl").read_text()

        return trace

    # `learn_from` says what is given: `sanbai train` reads it.
    of_others = ["desirable_weight", "learn_from", "margin", "undesirable_weight"]
    assert without_effect(RECIPE, OTHER, trace_with("dpo")) == sorted([*NEUTRAL, *of_others])
    rest = DirectRecipe.model_fields.keys()
    margin = without_effect(of_method("simpo"), {"margin": 3.0}, trace_with("simpo"))
    weights = without_effect(of_method("kto"), {"desirable_weight": 2.0, "undesirable_weight": 2.0}, trace_with("kto"))
    assert margin == sorted(rest - {"margin"})
    assert weights == sorted(rest - {"desirable_weight", "undesirable_weight"})
