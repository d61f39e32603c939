"""Fine-tuning an adapter: it learns, the model under it does not, and a killed run ends in the same bits."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file
from tests.training.conftest import Open, assert_same_bits
from torch import Tensor

from sanbai.data.conversations import Conversation
from sanbai.data.packing import EncodedItems
from sanbai.foundation.device import Compute
from sanbai.foundation.errors import ModelError
from sanbai.foundation.parallel import map_parts
from sanbai.foundation.stage import Stage
from sanbai.generation.answering import generate
from sanbai.generation.sampling import Sampling
from sanbai.model.adapters.peft_folder import load_adapter
from sanbai.model.adapters.recipe import AdapterRecipe
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import load_language_model
from sanbai.text.chat_template import encode_prompt
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.adapter_folder import ADAPTER
from sanbai.training.supervise import SuperviseRecipe, supervise

RECIPE = SuperviseRecipe(
    num_epochs=12.0,
    row_length=64,
    batch_rows=1,
    micro_batch_rows=1,
    learning_rate=2e-2,
    pretraining_share=0.2,
    checkpoint_steps=4,
)
EVERYWHERE = ("query", "key", "value", "out", "gate", "up", "down")
LORA = AdapterRecipe(method="lora", rank=8, alpha=16.0, targets=EVERYWHERE, dropout=0.1)
PREFIX = AdapterRecipe(method="prefix", num_virtual_tokens=4)
#: Leaves the prefix its room.
SHORT = RECIPE.model_copy(update={"row_length": 60})


def start(
    stage: Stage,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
    adapter: AdapterRecipe,
    recipe: SuperviseRecipe = RECIPE,
) -> dict[str, object]:
    return supervise(
        stage,
        recipe,
        compute,
        model=model,
        tokenizer=tokenizer,
        items=items,
        pretraining=items,
        evaluate=lambda _: {},
        adapter=adapter,
    )


@pytest.mark.parametrize("rate", [3e-2, 1e-12])
def test_lora_learns_the_demonstrations_and_not_without_a_rate(
    open_stage: Open,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
    demonstrations: list[Conversation],
    rate: float,
) -> None:
    changes = {"num_epochs": 150.0, "batch_rows": 2, "warmup_steps": 8, "learning_rate": rate, "pretraining_share": 0.0}
    stage = open_stage()
    adapter = LORA.model_copy(update={"dropout": 0.0})
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    learner = copy.deepcopy(model)
    metrics = start(stage, compute, learner, tokenizer, items, adapter, RECIPE.model_copy(update=changes))
    merged = load_language_model(stage.folder)

    def right(asked: LanguageModel) -> int:
        sampling, number = Sampling(temperature=0.0, max_new_tokens=20), 0
        for conversation in demonstrations:
            prompt = encode_prompt(tokenizer, conversation.messages[:-1])
            (answer,) = generate(asked, [prompt], sampling, seeds=[0], stop_ids={tokenizer.reserved.end})
            number += tokenizer.decode(answer.tokens) == conversation.messages[-1]["content"]
        return number

    assert right(merged) == (len(demonstrations) if rate > 1e-6 else 0)
    beside = load_adapter(copy.deepcopy(model), stage.folder / ADAPTER)
    assert right(beside.model) == right(merged), "the adapter beside the base and the merged model differ"
    assert metrics["adapter_parameters"] == sum(parameter.numel() for parameter in beside.parameters().values())
    for name, parameter in before.items():
        assert torch.equal(beside.model.get_parameter(name), parameter), name


@pytest.mark.parametrize("adapter", [LORA, PREFIX], ids=["lora", "prefix"])
def test_killed_it_ends_in_the_same_bits(
    open_stage: Open,
    outcome_after_kills: Callable[..., dict[str, Tensor]],
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
    adapter: AdapterRecipe,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights: dict[str, dict[str, Tensor]] = {}

    def train(name: str) -> Callable[[Stage], None]:
        def train_stage(stage: Stage) -> None:
            start(stage, compute, copy.deepcopy(model), tokenizer, items, adapter, SHORT)
            weights[name] = load_file(stage.folder / ADAPTER / "adapter_model.safetensors")
            if not (stage.folder / "model.safetensors").exists():  # the fixture reads it
                (stage.folder / "model.safetensors").write_bytes(
                    (stage.folder / ADAPTER / "adapter_model.safetensors").read_bytes()
                )

        return train_stage

    assert_same_bits(
        outcome_after_kills(train("killed"), "killed", (6, 9)), outcome_after_kills(train("whole"), "whole")
    )
    assert_same_bits(weights["killed"], weights["whole"])


def test_a_prompt_is_written_without_a_model_and_says_so(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    stage = open_stage()
    start(stage, compute, copy.deepcopy(model), tokenizer, items, PREFIX, SHORT)
    settings = json.loads((stage.folder / ADAPTER / "adapter_config.json").read_text())
    assert (settings["peft_type"], settings["num_virtual_tokens"]) == ("PREFIX_TUNING", 4)
    with pytest.raises(ModelError, match="holds an adapter alone"):
        load_language_model(stage.folder)
    assert load_adapter(model, stage.folder / ADAPTER).parameters()


def test_checkpoints_hold_only_what_learns(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    stage, kept = open_stage(), []
    save = stage.run.save
    stage.run.save = lambda step, tensors, state: (kept.append(tensors.keys()), save(step, tensors, state))
    start(stage, compute, copy.deepcopy(model), tokenizer, items, PREFIX, SHORT)
    assert kept
    assert all(len([name for name in names if name.startswith("model:")]) == 1 for names in kept)


def test_rows_that_leave_no_room_for_the_prompt_are_refused_at_the_start(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    with pytest.raises(ModelError, match=r"supervise\.row_length 64 exceeds the 60 positions"):
        start(open_stage(), compute, copy.deepcopy(model), tokenizer, items, PREFIX)


def test_in_bfloat16_products_it_learns_is_watched_in_threads_and_is_merged_into_the_weights_as_they_were(
    open_stage: Open,
    threads: Callable[[int], None],
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
) -> None:
    threads(2)
    seen: list[float] = []

    def evaluate(learner: LanguageModel) -> dict[str, float]:
        rows = torch.arange(32).view(2, 1, 16)
        seen.append(sum(map_parts(lambda row: learner(row).float().logsumexp(-1).sum().item(), list(rows))))
        return {"watched": seen[-1]}

    stage, before = open_stage(), {name: each.detach().clone() for name, each in model.named_parameters()}
    supervise(
        stage,
        RECIPE.model_copy(update={"evaluate_steps": 2}),
        Compute(num_threads=2, precision="bfloat16"),
        model=model,
        tokenizer=tokenizer,
        items=items,
        pretraining=items,
        evaluate=evaluate,
        adapter=LORA,
    )
    assert len(set(seen)) > 1
    merged, beside = load_language_model(stage.folder), load_adapter(model, stage.folder / ADAPTER).model
    for name, parameter in before.items():
        assert torch.equal(beside.get_parameter(name), parameter), name
    tokens = torch.arange(32).view(2, 16)
    with torch.no_grad():
        torch.testing.assert_close(merged(tokens), beside.eval()(tokens), rtol=1e-5, atol=1e-5)
