"""Direct preference with LoRA: against PEFT's adapter trained by a slow loop, and against whole models."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file
from tests.training.conftest import Open, assert_same_bits
from tests.training.test_direct import RECIPE, noted_references, of_method, rows_of, trade_logratios
from tests.training.test_players import OTHER_ADAPTERS
from tests.training.test_reward import labeled
from torch import Tensor

from sanbai.data.rankings import Ranking
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.device import Compute
from sanbai.foundation.errors import UsageError
from sanbai.foundation.seeds import torch_generator
from sanbai.foundation.stage import Stage
from sanbai.model.adapters.adapter import add_adapter
from sanbai.model.adapters.peft_folder import load_adapter, save_adapter
from sanbai.model.adapters.recipe import AdapterRecipe
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import load_language_model, save_model
from sanbai.text.chat_template import encode_prompt
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.adapter_folder import ADAPTER
from sanbai.training.direct import DirectRecipe, train_direct
from sanbai.training.optimizer import OptimizerRecipe
from sanbai.training.schedule import cosine_rate

EVERYWHERE = ("query", "key", "value", "out", "gate", "up", "down")
LORA = AdapterRecipe(method="lora", rank=4, alpha=16.0, targets=EVERYWHERE, dropout=0.5)
LEARNS = of_method("dpo", learning_rate=2e-2)


def start(
    stage: Stage,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    rankings: Sequence[Ranking],
    recipe: DirectRecipe = LEARNS,
    adapter: AdapterRecipe = LORA,
) -> dict[str, Any]:
    return train_direct(stage, recipe, compute, policy=model, tokenizer=tokenizer, rankings=rankings, adapter=adapter)


def weights_of(model: LanguageModel) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def answer_logprob(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """Of a model of transformers, by a pass of its own."""
    logits_TV = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    return F.log_softmax(logits_TV.float(), dim=-1).gather(-1, torch.tensor(answer).unsqueeze(-1)).sum()


def slow_dpo(theirs: Any, tokenizer: Tokenizer, rankings: Sequence[Ranking], recipe: DirectRecipe) -> list[float]:
    """Train PEFT's adapter as `recipe` says, answer by answer and pair by pair; return the loss of each step."""
    learning = [parameter for parameter in theirs.parameters() if parameter.requires_grad]
    settings = recipe.optimizer
    optimizer = torch.optim.AdamW(
        learning, lr=0.0, betas=(settings.beta1, settings.beta2), eps=settings.epsilon, weight_decay=0.0
    )
    losses = []
    for step in range(recipe.num_epochs):
        prompts = []
        for ranking in rankings:
            prompt = encode_prompt(tokenizer, ranking.messages)
            ratios = []
            for response in ranking.responses:
                answer = [*tokenizer.encode(response), tokenizer.reserved.end]
                with torch.no_grad(), theirs.disable_adapter():
                    reference = answer_logprob(theirs, prompt, answer)
                ratios.append(answer_logprob(theirs, prompt, answer) - reference)
            pairs = [-F.logsigmoid(recipe.beta * (ratios[w] - ratios[r])) for w, r in ranking.pairs()]
            prompts.append(torch.stack(pairs).mean())
        loss = torch.stack(prompts).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, settings.max_grad_norm)
        optimizer.param_groups[0]["lr"] = cosine_rate(
            step, peak=recipe.learning_rate, num_steps=recipe.num_epochs, warmup_steps=recipe.warmup_steps
        )
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # PEFT asks for it
def test_it_ends_in_the_factors_that_a_slow_loop_over_pefts_adapter_ends_in(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    rankings, adapter = labeled(5), LORA.model_copy(update={"dropout": 0.0})
    recipe = of_method(
        "dpo",
        num_epochs=4,
        batch_prompts=5,
        validation_share=0.0,
        warmup_steps=1,
        beta=0.3,
        learning_rate=2e-2,
        optimizer=OptimizerRecipe(epsilon=1e-3).model_dump(),  # where gradients are near 0, no sign decides
    )
    for name in ("base", "fresh"):
        (tmp_path / name).mkdir()
    save_model(model, tmp_path / "base", tokenizer)
    fresh = add_adapter(copy.deepcopy(model), adapter, torch_generator(1, "direct", "adapter"))
    save_adapter(fresh, tmp_path / "fresh", base=None)
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "fresh", is_trainable=True).eval()
    their_losses = slow_dpo(theirs, tokenizer, rankings, recipe)
    theirs.save_pretrained(tmp_path / "theirs")

    stage = open_stage(seed=1)
    start(stage, compute, model, tokenizer, rankings, recipe, adapter)
    assert [row["loss"] for row in rows_of(stage)] == pytest.approx(their_losses, rel=1e-4)
    assert their_losses[-1] < their_losses[0] - 0.1
    found = load_file(stage.folder / ADAPTER / "adapter_model.safetensors")
    expected = load_file(tmp_path / "theirs" / "adapter_model.safetensors")
    assert found.keys() == expected.keys()
    for name, factor in found.items():
        assert (factor - expected[name]).norm() <= 1e-3 * expected[name].norm(), name


def test_the_base_keeps_its_bits_and_what_is_written_is_the_base_with_the_adapter(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    references = noted_references(monkeypatch)
    before, stage = weights_of(model), open_stage()
    stage = replace(stage, parents={"start": Artifact(stage.folder.parent / "model-start", {})})
    metrics = start(stage, compute, model, tokenizer, labeled(24))
    assert_same_bits(weights_of(model), before)
    rows = torch.randint(6, 290, (3, 12), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        assert torch.equal(references[-1](rows), model.eval()(rows)), "the reference is the model without an adapter"
    own = {parameter.data_ptr() for parameter in model.parameters()}
    assert own < {parameter.data_ptr() for parameter in references[-1].parameters()}, "it holds the same weights"
    written = load_language_model(stage.folder)
    beside = load_adapter(model, stage.folder / ADAPTER)
    assert metrics["adapter_parameters"] == sum(each.numel() for each in beside.parameters().values())
    with torch.no_grad():
        torch.testing.assert_close(written(rows), beside.model(rows), rtol=1e-5, atol=1e-5)
        assert not torch.allclose(written(rows), references[-1](rows), atol=1e-2)
    settings = json.loads((stage.folder / ADAPTER / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "model-start"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_trap_10_before_the_first_step_policy_and_reference_are_one_to_the_bit(
    open_stage: Open, model: LanguageModel, tokenizer: Tokenizer, precision: str
) -> None:
    compute = Compute.model_validate({"num_threads": 1, "precision": precision})
    stage = open_stage()
    start(stage, compute, model, tokenizer, labeled(24))
    before, first = rows_of(stage)[:2]
    assert before["kl"] == before["validation_chosen_logratio"] == before["validation_rejected_logratio"] == 0.0
    assert first["chosen_logratio"] == first["rejected_logratio"] == first["margin"] == 0.0
    assert first["loss"] == pytest.approx(math.log(2), rel=1e-6)


@pytest.mark.parametrize("turned", [False, True])
def test_an_adapter_ranks_as_the_labelers_do_and_rankings_turned_round_teach_the_opposite(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, turned: bool
) -> None:
    rankings = [replace(each, buckets=each.buckets[::-1]) if turned else each for each in labeled(200)]
    stage = open_stage()
    metrics = start(stage, compute, copy.deepcopy(model), tokenizer, rankings)
    ratios = trade_logratios(stage, compute, model, tokenizer)
    assert ratios == sorted(ratios, reverse=turned)
    assert metrics["validation_accuracy"] > 0.7
    assert metrics["kl"] > 0


def test_without_a_rate_an_adapter_learns_nothing(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    """The control: the same run at a rate of nearly 0."""
    stage = open_stage()
    recipe = LEARNS.model_copy(update={"learning_rate": 1e-12})
    start(stage, compute, copy.deepcopy(model), tokenizer, labeled(40), recipe)
    assert trade_logratios(stage, compute, model, tokenizer) == pytest.approx([0.0] * 5, abs=1e-5)


def test_trap_25_killed_it_ends_in_the_same_bits(
    outcome_after_kills: Callable[..., dict[str, Tensor]], compute: Compute, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    factors: dict[str, dict[str, Tensor]] = {}
    saved: list[str] = []

    def train(stage: Stage) -> None:
        save = stage.run.save
        stage.run.save = lambda step, tensors, state: (saved.extend(tensors), save(step, tensors, state))
        start(stage, compute, copy.deepcopy(model), tokenizer, labeled(60))
        factors[stage.folder.parent.name] = load_file(stage.folder / ADAPTER / "adapter_model.safetensors")

    killed, undisturbed = outcome_after_kills(train, "killed", (2, 5)), outcome_after_kills(train, "undisturbed")
    assert_same_bits(killed, undisturbed)
    assert_same_bits(factors["killed"], factors["undisturbed"])
    assert any(name.startswith("model:") for name in saved)
    own = {f"model:{name}" for name, _ in model.named_parameters()}
    assert own.isdisjoint(saved), "checkpoints hold the adapter alone"


def test_every_field_of_lora_changes_the_run_but_dropout(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    others = OTHER_ADAPTERS | {"dropout": 0.0}
    assert others.keys() == AdapterRecipe.model_fields.keys()

    def trace(name: str, adapter: AdapterRecipe) -> str:
        stage = open_stage(name)
        start(stage, compute, copy.deepcopy(model), tokenizer, labeled(20), adapter=adapter)
        return (stage.run.folder / "metrics.jsonl").read_text()

    plain = trace("plain", LORA)
    unchanged = [name for name in others if trace(name, LORA.model_copy(update={name: others[name]})) == plain]
    assert sorted(unchanged) == ["dropout", "encoder_width", "num_virtual_tokens"]


def test_an_adapter_that_begins_as_something_is_refused(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    with pytest.raises(UsageError, match=r"adapter\.method prefix .* wants lora or none"):
        start(open_stage(), compute, model, tokenizer, labeled(8), RECIPE, AdapterRecipe(method="prefix"))
