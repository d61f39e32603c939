from __future__ import annotations

import json
from collections.abc import Callable

from tests.training.conftest import Open, assert_same_bits
from torch import Tensor

from sanbai.data.packing import EncodedItems
from sanbai.foundation.device import Compute
from sanbai.foundation.stage import Stage
from sanbai.model.config import ModelConfig
from sanbai.model.hugging_face import load_language_model
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.optimizer import OptimizerRecipe
from sanbai.training.pretrain import PretrainRecipe, pretrain

RECIPE = PretrainRecipe(
    num_steps=24,
    row_length=48,
    batch_rows=3,
    micro_batch_rows=2,
    learning_rate=1e-2,
    warmup_steps=2,
    evaluate_steps=7,
    checkpoint_steps=5,
    optimizer=OptimizerRecipe(weight_decay=0.1),
)


def start(
    stage: Stage,
    compute: Compute,
    config: ModelConfig,
    tokenizer: Tokenizer,
    items: EncodedItems,
    recipe: PretrainRecipe = RECIPE,
) -> dict[str, object]:
    return pretrain(
        stage, recipe, compute, config=config, tokenizer=tokenizer, items=items, evaluate=lambda _: {"held_out": 1.0}
    )


def test_a_tiny_model_learns_its_few_documents_by_heart(
    open_stage: Open, compute: Compute, config: ModelConfig, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    stage = open_stage()
    recipe = RECIPE.model_copy(update={"num_steps": 90, "warmup_steps": 10})
    metrics = start(stage, compute, config, tokenizer, items, recipe)
    rows = [json.loads(line) for line in (stage.run.folder / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[0] > 5.0
    assert losses[-1] < 0.05
    assert [row["step"] for row in rows if "held_out" in row] == [*range(7, 90, 7), 90]
    assert metrics["held_out"] == 1.0
    assert load_language_model(stage.folder).config.vocab_size == tokenizer.vocab_size


def test_trap_25_killed_twice_it_ends_in_the_same_bits(
    outcome_after_kills: Callable[..., dict[str, Tensor]],
    compute: Compute,
    config: ModelConfig,
    tokenizer: Tokenizer,
    items: EncodedItems,
) -> None:
    def train(stage: Stage) -> object:
        return start(stage, compute, config, tokenizer, items)

    assert_same_bits(outcome_after_kills(train, "killed", (8, 17)), outcome_after_kills(train, "undisturbed"))


def test_no_bit_depends_on_the_number_of_threads(
    outcome_after_kills: Callable[..., dict[str, Tensor]],
    threads: Callable[[int], None],
    compute: Compute,
    config: ModelConfig,
    tokenizer: Tokenizer,
    items: EncodedItems,
) -> None:
    recipe = RECIPE.model_copy(update={"micro_batch_rows": 1, "optimizer": OptimizerRecipe(matrices="muon")})
    outcomes = []
    for number in (1, 3):
        threads(number)
        train = lambda stage: start(stage, compute, config, tokenizer, items, recipe)  # noqa: E731
        outcomes.append(outcome_after_kills(train, f"{number} threads"))
    assert_same_bits(*outcomes)
