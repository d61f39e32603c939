"""The plan of an aligned model's memory, against the bytes that its tensors take on a CPU."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sanbai.foundation.device import Compute, autocast
from sanbai.foundation.seeds import torch_generator
from sanbai.generation.answering import answer_all
from sanbai.generation.engine import ContinuousEngine, EngineSettings
from sanbai.generation.precision import decoding_copy
from sanbai.generation.request import Request
from sanbai.generation.sampling import Sampling
from sanbai.model.adapters.adapter import add_adapter
from sanbai.model.adapters.recipe import AdapterRecipe
from sanbai.model.adapters.shared import adapt, copy_learning, over_same_weights, place_models
from sanbai.model.attention import BLOCK
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel, ScalarModel, new_scalar_head
from sanbai.model.packed import PackedLinear
from sanbai.model.presets import PRESETS
from sanbai.model.row_product import can_multiply_rows
from sanbai.model.size import count_parameters, shape_of
from sanbai.model.window import Window
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.ahead import Ahead
from sanbai.training.brake import Brake, Verdict
from sanbai.training.direct import DirectRecipe
from sanbai.training.gradients import learning
from sanbai.training.learner import Learner
from sanbai.training.optimizer import Optimizer, OptimizerRecipe
from sanbai.training.ppo import Critic, LearnerWorker, PpoRecipe
from sanbai.training.reward import RewardRecipe
from sanbai.training.reward_model import Calibration, RewardModel
from sanbai.training.roles import Models, RolloutWorker
from sanbai.training.stage_memory import (
    CACHE_COPIES,
    FLOAT,
    PACKED,
    Aligned,
    activation_bytes,
    cache_bytes,
    count_factors,
    count_products,
    decoder_bytes,
    direct_memory,
    ppo_memory,
    practice_memory,
    reward_memory,
    supervise_memory,
)
from sanbai.training.supervise import SuperviseRecipe

LORA = AdapterRecipe(method="lora", rank=4, targets=("query", "key", "value", "out", "gate", "up", "down"))
CONFIG = ModelConfig(
    vocab_size=400, num_layers=3, width=64, num_heads=4, num_kv_heads=2, head_width=16, feed_forward_width=160,
    max_positions=512, query_key_norm=True, tied_embeddings=False, feed_forward="swiglu",
)  # fmt: skip
PRECISIONS = ("float32", "bfloat16")


def aligned(precision: str, adapter: AdapterRecipe = LORA) -> Aligned:
    return Aligned(shape_of(CONFIG), adapter, Compute.model_validate({"num_threads": 1, "precision": precision}))


class Elsewhere:
    """Stands for workers on another machine, which take weights and are busy."""

    are_elsewhere = True

    def load(self, _: Mapping[str, Tensor]) -> None:
        pass


def bytes_of(values: Iterable[Any]) -> int:
    storages = {
        each.untyped_storage().data_ptr(): each.untyped_storage().nbytes()
        for each in values
        if isinstance(each, Tensor)
    }
    return sum(storages.values())


def weights_of(*models: nn.Module) -> list[Tensor]:
    return [parameter for model in models for parameter in model.parameters()]


def adapted_policy() -> LanguageModel:
    policy = LanguageModel(CONFIG, torch_generator(0, "tests")).eval()
    add_adapter(policy, LORA, torch_generator(1, "tests"))
    return policy


def players(model: Aligned) -> tuple[LanguageModel, ScalarModel, ScalarModel, ScalarModel]:
    """Policy, value model, reward model and judge: whole, or LoRA over one set of weights."""
    base = LanguageModel(CONFIG, torch_generator(0, "tests")).eval()
    if model.is_whole:
        value, reward, judge = (ScalarModel.from_language_model(base, torch_generator(2, "head")) for _ in range(3))
        return base, value, reward, judge
    policy = over_same_weights(base)
    add_adapter(policy, LORA, torch_generator(1, "tests"))

    def scalar() -> ScalarModel:
        made = ScalarModel.on_trunk(over_same_weights(base.trunk), new_scalar_head(64, torch_generator(2, "head")))
        add_adapter(made, LORA, torch_generator(3, "tests"))
        made.head.requires_grad_(requires_grad=True)
        return made

    reward, judge = scalar(), scalar()
    placed = place_models(
        [policy, copy_learning(reward), reward, judge], device="cpu", product_dtype=model.compute.product_dtype
    )
    return tuple(placed)


@pytest.mark.parametrize("tied", [True, False])
def test_products_and_factors_are_those_of_the_model(tied: bool) -> None:
    config = CONFIG.model_copy(update={"tied_embeddings": tied})
    model = LanguageModel(config, torch_generator(0, "tests"))
    linears = [each for each in model.modules() if isinstance(each, nn.Linear)]
    assert count_products(shape_of(config)) == sum(each.weight.numel() for each in linears)
    for targets in (("query",), ("value", "out"), LORA.targets):
        recipe = LORA.model_copy(update={"targets": targets})
        tree = over_same_weights(model)
        add_adapter(tree, recipe, torch_generator(1, "tests"))
        assert count_factors(shape_of(config), recipe) == sum(each.numel() for each in learning(tree))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_practice_holds_is_what_the_plan_says(precision: str) -> None:
    """All players, both optimizers after a step, the average and the best weights; gradients have been let go."""
    model = aligned(precision)
    policy, value, reward, judge = players(model)
    learner = Learner.gather(policy, OptimizerRecipe(), ema_decay=0.9, keeps_average=True)
    critic = Critic(value, Optimizer(value, OptimizerRecipe()))
    for moved, optimizer in ((policy, learner.optimizer), (value, critic.optimizer)):
        for parameter in learning(moved):
            parameter.grad = torch.ones_like(parameter)
        optimizer.step(1e-3)
    brake = Brake(patience=1, kl_budget=1.0)
    brake.see(Verdict(step=0, judge_reward=0.0, reward=0.0, kl=0.0), learner.kept.tensors())
    held = weights_of(policy, learner.reference, value, reward, judge)
    for part in (learner.optimizer, critic.optimizer, learner.average, brake):
        held += [each for each in part.tensors().values() if each.numel() > 1]
    planned = practice_memory(model, PpoRecipe(ptx_coef=0.0), max_prompt_tokens=8)
    gradients = 2 * 2 * FLOAT * model.learned()
    assert bytes_of(held) == pytest.approx(planned.weights + planned.learning - gradients, rel=0.01)


@pytest.mark.parametrize("staleness", [0, 1])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_workers_elsewhere_hold_is_what_the_plan_says(
    tokenizer: Tokenizer, precision: str, whole: bool, staleness: int
) -> None:
    """Pickled, as they go to another process; and what the run's own process keeps of what it has sent.

    Whole scalar models are planned with the language model's head, which they lack.
    """
    model = aligned(precision, AdapterRecipe() if whole else LORA)
    recipe = PpoRecipe.model_validate({"staleness": staleness, "roles": {"place": "ray", "learners": 1}})
    policy, value, scorer, _ = players(model)
    reward, compute = RewardModel(scorer, Calibration(1, 0.0, 0.0, 1.0), model.compute), model.compute
    answering = Models(policy, None if staleness else value)
    asking = RolloutWorker(answering, copy_learning(policy), reward, recipe, compute, tokenizer)
    differentiating = LearnerWorker(Models(policy, value), recipe, compute)
    rollout_worker, learner = pickle.loads(pickle.dumps(asking)), pickle.loads(pickle.dumps(differentiating))
    planned = ppo_memory(model, recipe, max_prompt_tokens=8)
    assert list(planned) == ["ppo", "ppo_rollout_worker", "ppo_learner"]

    head = FLOAT * CONFIG.vocab_size * CONFIG.width if whole else 0
    lacking = head * (1 if staleness else 2)
    read = [rollout_worker.models.policy, rollout_worker.reference, rollout_worker.reward.model]
    held = weights_of(*read, *([] if staleness else [rollout_worker.models.value]))
    assert bytes_of(held) + lacking == pytest.approx(planned["ppo_rollout_worker"].weights, rel=0.01)
    assert planned["ppo_rollout_worker"].learning == 0
    ahead, may_end = Ahead(Elsewhere()), threading.Event()
    try:
        if staleness:
            ahead.begin(may_end.wait, answering.weights())  # type: ignore[arg-type]
        under_way = bytes_of(ahead.tensors().values())
        assert under_way == (bytes_of(answering.weights().values()) if staleness else 0)
        sent = bytes_of(held) + bytes_of(answering.weights().values()) + under_way
        lacking += 0 if staleness else head  # of the value model that is sent
        assert sent + lacking == pytest.approx(planned["ppo_rollout_worker"].sent, rel=0.01)
    finally:
        may_end.set()
        ahead.close()

    held = weights_of(learner.models.policy, learner.models.value)
    assert bytes_of(held) + head == pytest.approx(planned["ppo_learner"].weights, rel=0.01)
    sent = bytes_of(held) + bytes_of(learner.models.weights().values())
    assert sent + 2 * head == pytest.approx(planned["ppo_learner"].sent, rel=0.01)
    gradient = FLOAT * sum(each.numel() for each in learning(learner.models.policy))
    assert gradient == pytest.approx(planned["ppo_learner"].learning, rel=0.01)


def test_workers_in_the_process_hold_nothing_of_their_own() -> None:
    recipe = PpoRecipe.model_validate({"staleness": 1, "roles": {"rollout_workers": 4, "learners": 2}})
    planned = ppo_memory(aligned("bfloat16"), recipe, max_prompt_tokens=8)
    assert planned == {"ppo": practice_memory(aligned("bfloat16"), recipe, max_prompt_tokens=8)}
    assert planned["ppo"].sent == 0


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_direct_preference_holds_is_what_the_plan_says(precision: str, whole: bool) -> None:
    """Policy, reference and the optimizer after a step; the gradient has been let go."""
    model = aligned(precision, AdapterRecipe() if whole else LORA)
    policy = LanguageModel(CONFIG, torch_generator(0, "tests"))
    if not whole:
        policy = adapt(policy, LORA, torch_generator(1, "tests"), model.compute).model
    reference, optimizer = copy_learning(policy), Optimizer(policy, OptimizerRecipe())
    for parameter in learning(policy):
        parameter.grad = torch.ones_like(parameter)
    optimizer.step(1e-3)
    held = weights_of(policy, reference) + [each for each in optimizer.tensors().values() if each.numel() > 1]
    planned = direct_memory(model, DirectRecipe(), max_answers=4)
    gradients = 2 * FLOAT * model.learned()
    assert bytes_of(held) == pytest.approx(planned.weights + planned.learning - gradients, rel=0.01)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_a_forward_pass_keeps_is_what_the_plan_says(precision: str) -> None:
    model = aligned(precision)
    (policy,) = place_models([adapted_policy()], device="cpu", product_dtype=model.compute.product_dtype)
    own = {each.untyped_storage().data_ptr() for each in policy.parameters()}
    rows, length = 3, 256
    kept: list[Tensor] = []
    tokens = torch.randint(400, (rows, length), generator=torch_generator(4, "tokens"))
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each) or each, lambda each: each)
    with hooks, autocast(model.compute):
        policy.trunk(tokens)
    measured = bytes_of(each for each in kept if each.untyped_storage().data_ptr() not in own)
    # On a CPU a block of queries keeps weights over the keys up to its end: half of the square, and a diagonal.
    planned = rows * length * activation_bytes(model, length=(length + BLOCK) // 2)
    assert measured == pytest.approx(planned, rel=0.1)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_answering_takes_is_what_the_plan_says(precision: str, whole: bool) -> None:
    """The copy's weights, with the forms they are packed in where this CPU has any; the plan is for one that has all.

    Keys and values of answers that fill their room: once in blocks and once in the window.
    """
    model = aligned(precision, AdapterRecipe() if whole else LORA)
    policy = players(model)[0]
    decoder = decoding_copy(policy, "bfloat16" if precision == "bfloat16" else "stored")
    linears = [each for each in decoder.modules() if isinstance(each, PackedLinear)]
    packed = sum(each.weight.numel() for each in linears) * (2 + 2 * any(each.by_rows for each in linears))
    lacking = (decoder_bytes(model) > 0) * whole * (PACKED * count_products(model.shape)) - packed
    assert lacking == 0 or (lacking > 0 and not can_multiply_rows())
    own = bytes_of(weights_of(policy, decoder)) - bytes_of(weights_of(policy))
    assert own + packed + lacking == pytest.approx(decoder_bytes(model), rel=0.01)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_keys_and_values_of_a_batch_take_no_more_than_the_plan_says(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks, and the window with its former room, while answers grow until they fill theirs."""
    model, rows, length = aligned(precision), 10, 64
    decoder = decoding_copy(players(model)[0], "bfloat16" if precision == "bfloat16" else "stored")
    held: list[int] = []
    resize = Window._resize

    def watched(window: Window, *arguments: Any) -> None:
        former = bytes_of(vars(window).values())
        resize(window, *arguments)
        held.append(former + bytes_of(vars(window).values()))

    monkeypatch.setattr(Window, "_resize", watched)
    settings = EngineSettings(num_blocks=rows * length // 16, block_size=16, max_rows=rows, step_tokens=rows * length)
    engine = ContinuousEngine(decoder, settings)
    requests = [Request(prompt=[row] * 20, sampling=Sampling(max_new_tokens=44), seeds=[row]) for row in range(rows)]
    answer_all(engine, requests)
    most = bytes_of(vars(engine._cache).values()) + max(held)
    planned = CACHE_COPIES * cache_bytes(model, rows=rows, length=length)
    assert 0.8 * planned < most <= planned


def test_adapters_need_a_fraction_and_every_stage_is_counted() -> None:
    lora, whole = aligned("bfloat16"), aligned("bfloat16", AdapterRecipe())
    supervise = SuperviseRecipe(row_length=64, micro_batch_rows=1)
    reward = RewardRecipe(max_prompt_tokens=8, max_response_tokens=8, micro_batch_tokens=64)
    practice = PpoRecipe(micro_batch_tokens=64, max_new_tokens=8, ptx_row_length=64, rollout_rows=1)
    direct = DirectRecipe(max_prompt_tokens=8, max_response_tokens=8, micro_batch_tokens=64)
    parameters = count_parameters(whole.shape).total
    for small, large in (
        (supervise_memory(lora, supervise), supervise_memory(whole, supervise)),
        (reward_memory(lora, reward, max_answers=2), reward_memory(whole, reward, max_answers=2)),
        (practice_memory(lora, practice, max_prompt_tokens=8), practice_memory(whole, practice, max_prompt_tokens=8)),
        (direct_memory(lora, direct, max_answers=2), direct_memory(whole, direct, max_answers=2)),
    ):
        assert small.weights + small.learning < large.weights + large.learning
        assert small.total == small.weights + small.learning + max(small.activations, small.answering)
    # Two learn, with two gradients and two moments each; three copies of the policy or its gradient; three only answer.
    found = practice_memory(whole, practice, max_prompt_tokens=8)
    assert found.learning + found.weights == FLOAT * parameters * (2 * 5 + 3 + 3)


def test_a_llama_3_8b_fits_eighty_gigabytes_by_adapters_alone() -> None:
    compute, shape = Compute(num_threads=1, precision="bfloat16", device="cuda"), shape_of(PRESETS["llama-3-8b"])
    practice = PpoRecipe(micro_batch_tokens=2048, max_new_tokens=512, ptx_row_length=2048, rollout_rows=32)
    lora = practice_memory(Aligned(shape, LORA, compute), practice, max_prompt_tokens=512)
    whole = practice_memory(Aligned(shape, AdapterRecipe(), compute), practice, max_prompt_tokens=512)
    assert lora.total < 72e9, "a tenth is left free"
    assert whole.total > 400e9
