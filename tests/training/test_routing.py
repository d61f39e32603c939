"""Experts in the training stages: their noise, their losses, their numbers in the log."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.training.conftest import Open, assert_same_bits
from torch import Tensor

from sanbai.data.packing import EncodedItems, PackedBatches
from sanbai.foundation.device import Compute
from sanbai.foundation.errors import ModelError
from sanbai.foundation.seeds import torch_generator
from sanbai.foundation.stage import Stage
from sanbai.model.config import ModelConfig
from sanbai.model.experts import Experts
from sanbai.model.heads import LanguageModel
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.gradients import differentiate
from sanbai.training.pretrain import PretrainRecipe, pretrain
from sanbai.training.routing import Routing
from sanbai.training.rows import row_parts
from sanbai.training.supervise import SuperviseRecipe, supervise

NAMES = {"balance_loss", "router_load", "dropped_share", "router_entropy", "dead_experts"}
PRETRAIN = PretrainRecipe(
    num_steps=10, row_length=64, batch_rows=2, micro_batch_rows=1, learning_rate=1e-2, warmup_steps=1,
    checkpoint_steps=4, evaluate_steps=4,
)  # fmt: skip
SUPERVISE = SuperviseRecipe(
    num_epochs=12.0, row_length=64, batch_rows=1, micro_batch_rows=1, learning_rate=1e-2, pretraining_share=0.2,
    checkpoint_steps=4,
)  # fmt: skip


@pytest.fixture
def sparse(config: ModelConfig) -> ModelConfig:
    """Mixtral's, the stock architecture of a decoder with experts; with Switch's jitter and capacity."""
    return sparse_config(config, top_k=2, normalised_gates=True)


def sparse_config(config: ModelConfig, **experts: object) -> ModelConfig:
    changes = {"sparse_layers": "all", "experts": {"num_experts": 4, **experts}}
    return ModelConfig.model_validate({**config.model_dump(), **changes})


def batch_of(items: EncodedItems, rows: int) -> Any:
    return next(PackedBatches(items, row_length=40, batch_rows=rows, seed=0, pad_id=1))


def steps_of(stage: Stage) -> list[dict[str, float]]:
    lines = (stage.run.folder / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if "loss" in row]


def test_the_numbers_of_a_step_are_those_of_a_loop_over_tokens(
    config: ModelConfig, items: EncodedItems, compute: Compute
) -> None:
    model = LanguageModel(sparse_config(config, jitter=0.0, capacity_factor=1.0), torch_generator(0, "tests"))
    seen: list[tuple[Tensor, Tensor]] = []
    hooks = [
        module.register_forward_hook(
            lambda module, args, kwargs, out: seen.append(
                (torch.softmax(args[0] @ module.router.T, -1).detach(), kwargs["mask_BT"])
            ),
            with_kwargs=True,
        )
        for module in model.modules()
        if isinstance(module, Experts)
    ]
    batch, routing = batch_of(items, 4), Routing()
    differentiate({"loss": row_parts(model, batch, compute, micro_batch_rows=2, routing=routing)})
    for hook in hooks:
        hook.remove()

    sums = dict.fromkeys(NAMES, 0.0)
    for layer in range(2):
        parts = [seen[layer], seen[2 + layer]]  # two parts, layer after layer each
        total = sum(int(mask.sum()) for _, mask in parts)
        counts, dropped, entropy, balance = [0] * 4, 0, 0.0, 0.0
        for probability_BTE, mask_BT in parts:
            here, mean, num = [0] * 4, [0.0] * 4, int(mask_BT.sum())
            capacity = math.ceil(num / 4)
            for probability_E, real in zip(probability_BTE.flatten(0, 1).tolist(), mask_BT.flatten(), strict=True):
                if not real:
                    continue
                chosen = max(range(4), key=probability_E.__getitem__)
                dropped += here[chosen] >= capacity
                here[chosen] += 1
                mean = [before + now / num for before, now in zip(mean, probability_E, strict=True)]
                entropy -= sum(p * math.log(p) for p in probability_E) / total
            balance += num / total * 4 * sum(count / num * p for count, p in zip(here, mean, strict=True))
            counts = [before + now for before, now in zip(counts, here, strict=True)]
        sums["balance_loss"] += balance / 2
        sums["router_load"] += max(counts) * 4 / total / 2
        sums["dropped_share"] += dropped / total / 2
        sums["router_entropy"] += entropy / 2
        sums["dead_experts"] += counts.count(0)
    assert routing.metrics() == pytest.approx(sums, rel=1e-4)


def test_an_undecided_router_has_balance_loss_1_and_entropy_log_e(
    config: ModelConfig, items: EncodedItems, compute: Compute
) -> None:
    losses = {}
    for coefficient in (0.0, 0.01):
        shape = sparse_config(config, balance_coef=coefficient, jitter=0.0, dropless=True)
        model, routing = LanguageModel(shape, torch_generator(0, "tests")), Routing()
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, Experts):
                    module.router.zero_()
        parts = row_parts(model, batch_of(items, 4), compute, micro_batch_rows=2, routing=routing)
        losses[coefficient] = differentiate({"loss": parts})["loss"].loss
        numbers = routing.metrics()
        assert numbers["balance_loss"] == pytest.approx(1.0, rel=1e-6)
        assert numbers["router_entropy"] == pytest.approx(math.log(4), rel=1e-6)
        assert numbers["dropped_share"] == 0.0
    assert losses[0.01] - losses[0.0] == pytest.approx(2 * 0.01, rel=1e-4), "alpha a layer"


def test_a_dense_model_has_no_numbers_of_routers(model: LanguageModel, items: EncodedItems, compute: Compute) -> None:
    routing = Routing()
    differentiate({"loss": row_parts(model, batch_of(items, 2), compute, micro_batch_rows=1, routing=routing)})
    assert routing.metrics() == {}


def test_a_parts_noise_is_its_seeds_and_another_parts_is_another(
    sparse: ModelConfig, items: EncodedItems, compute: Compute, threads: Callable[[int], None]
) -> None:
    shape = sparse_config(sparse, dropout=0.4, jitter=0.1)
    model, batch = LanguageModel(shape, torch_generator(0, "tests")), batch_of(items, 4)

    def gradient(seed: int) -> list[Tensor]:
        torch.rand(seed + 1)  # the noise is not torch's own stream
        parts = row_parts(model, batch, compute, micro_batch_rows=1, seed=seed)
        return differentiate({"loss": parts})["loss"].gradient

    alone = gradient(3)
    assert all(torch.equal(first, second) for first, second in zip(alone, gradient(3), strict=True))
    threads(2)
    assert all(torch.equal(first, second) for first, second in zip(alone, gradient(3), strict=True))
    assert not all(torch.equal(first, second) for first, second in zip(alone, gradient(4), strict=True))


def test_pretraining_teaches_a_sparse_model_and_logs_its_routers(
    open_stage: Open, compute: Compute, sparse: ModelConfig, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    modes: list[bool] = []
    stage = open_stage()
    recipe = PRETRAIN.model_copy(update={"num_steps": 60, "evaluate_steps": 20})

    def evaluate(model: LanguageModel) -> dict[str, float]:
        modes.append(any(module.training for module in model.modules()))
        return {}

    pretrain(stage, recipe, compute, config=sparse, tokenizer=tokenizer, items=items, evaluate=evaluate)
    rows = steps_of(stage)
    assert rows[0].keys() >= NAMES
    assert rows[-1]["loss"] < 0.3 * rows[0]["loss"]
    assert modes == [False] * 3, "evaluated with the noise or the capacity of training"
    assert all(0.9 <= row["balance_loss"] <= 4.0 for row in rows)


def test_expert_dropout_holds_while_fine_tuning_and_does_not_enter_the_model(
    open_stage: Open, compute: Compute, sparse: ModelConfig, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    model = LanguageModel(sparse, torch_generator(0, "tests")).eval()
    dropouts: list[float] = []

    def evaluate(model: LanguageModel) -> dict[str, float]:
        dropouts.extend(module.config.dropout for module in model.modules() if isinstance(module, Experts))
        return {}

    stage = open_stage()
    supervise(stage, SUPERVISE, compute, model=model, tokenizer=tokenizer, items=items, pretraining=items,
              evaluate=evaluate)  # fmt: skip
    assert dropouts == [0.4, 0.4]
    settings = json.loads((stage.folder / "config.json").read_text())
    assert settings["sanbai_experts"]["dropout"] == 0.0
    assert steps_of(stage)[0].keys() >= NAMES


def test_a_killed_run_of_a_sparse_model_ends_in_the_same_bits(
    outcome_after_kills: Callable[..., dict[str, Tensor]],
    compute: Compute,
    sparse: ModelConfig,
    tokenizer: Tokenizer,
    items: EncodedItems,
) -> None:
    model = LanguageModel(sparse, torch_generator(0, "tests"))

    def train(stage: Stage) -> None:
        supervise(stage, SUPERVISE, compute, model=copy.deepcopy(model), tokenizer=tokenizer, items=items,
                  pretraining=items, evaluate=lambda _: {})  # fmt: skip

    assert_same_bits(outcome_after_kills(train, "killed", (6, 9)), outcome_after_kills(train, "undisturbed"))


def test_a_shape_that_no_file_can_hold_is_refused_before_training(
    open_stage: Open, compute: Compute, config: ModelConfig, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    stage = open_stage()
    with pytest.raises(ModelError, match="no stock architecture has this shape"):
        pretrain(stage, PRETRAIN, compute, config=sparse_config(config), tokenizer=tokenizer, items=items,
                 evaluate=lambda _: {})  # fmt: skip
    assert steps_of(stage) == []
