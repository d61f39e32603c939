from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tests.training.conftest import NAMES, TRADES, Open, assert_same_bits
from tests.training.test_objective import READER, SHAPE
from torch import Tensor

from sanbai.data.labeled import LabeledText
from sanbai.foundation.device import Compute
from sanbai.foundation.errors import DataError, RecipeError
from sanbai.foundation.seeds import python_random, torch_generator
from sanbai.foundation.stage import Stage
from sanbai.model.adapters.low_rank import LowRankLinear
from sanbai.model.adapters.peft_folder import load_adapter
from sanbai.model.adapters.recipe import AdapterRecipe
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import Model, load_model, save_model
from sanbai.model.reading_heads import Classifier, MaskedPairModel
from sanbai.text.reserved import READING_MARKERS
from sanbai.text.tokenizer import Tokenizer, train_tokenizer
from sanbai.training.classify import (
    ClassifyRecipe,
    Learner,
    adapt,
    classification_parts,
    classify,
    encode_text,
    num_classify_steps,
    text_batch,
)
from sanbai.training.gradients import differentiate
from sanbai.training.optimizer import OptimizerRecipe
from sanbai.training.schedule import linear_rate

RECIPE = ClassifyRecipe(
    num_epochs=6.0,
    batch_rows=8,
    micro_batch_rows=3,
    max_tokens=24,
    learning_rate=1e-2,
    warmup_share=0.1,
    evaluate_steps=5,
    checkpoint_steps=4,
    optimizer=OptimizerRecipe(),
)
CLASSES = ("early", "late")
LORA = AdapterRecipe(method="lora", rank=4, alpha=8.0, targets=("query", "value", "up", "down"))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = [f"{name} is a {trade}." for name in NAMES for trade in TRADES]
    return train_tokenizer(texts * 3, vocab_size=310, extra_markers=tuple(READING_MARKERS.values()))


def examples(num: int, *, seed: int = 1, shuffled: bool = False) -> list[LabeledText]:
    """Whether the first of two names comes before the second in `NAMES`; or nothing that the text tells."""
    generator = python_random(seed, "examples")
    found = []
    for number in range(num):
        name, trade = generator.choice(NAMES), generator.choice(TRADES)
        early = generator.random() < 0.5 if shuffled else NAMES.index(name) < 2
        found.append(LabeledText(str(number), f"{name} is a {trade}.", CLASSES[0] if early else CLASSES[1]))
    return found


def decoder(tokenizer: Tokenizer, **changes: Any) -> LanguageModel:
    config = ModelConfig(**{**SHAPE, **changes}, vocab_size=tokenizer.vocab_size)
    return LanguageModel(config, torch_generator(1))


def reader(tokenizer: Tokenizer) -> MaskedPairModel:
    return MaskedPairModel(ModelConfig(**READER, vocab_size=tokenizer.vocab_size), torch_generator(1))


def start(
    stage: Stage,
    compute: Compute,
    model: Model,
    tokenizer: Tokenizer,
    recipe: ClassifyRecipe = RECIPE,
    *,
    shuffled: bool = False,
    adapter: AdapterRecipe | None = None,
) -> dict[str, Any]:
    return classify(
        stage,
        recipe,
        compute,
        model=model,
        tokenizer=tokenizer,
        examples=examples(40, shuffled=shuffled),
        heldout=examples(100, seed=2, shuffled=shuffled),
        adapter=adapter or AdapterRecipe(),
    )


@pytest.mark.parametrize("kind", [decoder, reader])
def test_a_classifier_learns_what_the_texts_tell_and_nothing_else(
    kind: Callable[[Tokenizer], Model], open_stage: Open, compute: Compute, tokenizer: Tokenizer
) -> None:
    weight = 0.5 if kind is decoder else 0.0
    recipe = RECIPE.model_copy(update={"auxiliary_language_loss": weight, "num_epochs": 12.0})
    model = kind(tokenizer)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    stage = open_stage("told")
    metrics = start(stage, compute, model, tokenizer, recipe)
    assert metrics["accuracy"] > 0.95
    assert metrics["classes"] == list(CLASSES)
    control = start(open_stage("shuffled"), compute, model, tokenizer, recipe, shuffled=True)
    assert abs(control["accuracy"] - 0.5) < 0.2
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    loaded = load_model(stage.folder)
    assert isinstance(loaded, Classifier)
    settings = json.loads((stage.folder / "config.json").read_text())
    assert settings["id2label"] == {"0": "early", "1": "late"}


@pytest.mark.parametrize("kind", [decoder, reader])
def test_an_adapter_learns_the_classes_and_the_base_keeps_its_bits(
    kind: Callable[[Tokenizer], Model], open_stage: Open, compute: Compute, tokenizer: Tokenizer
) -> None:
    weight = 0.5 if kind is decoder else 0.0
    changes = {"auxiliary_language_loss": weight, "num_epochs": 16.0, "learning_rate": 2e-2}
    recipe, base = RECIPE.model_copy(update=changes), kind(tokenizer)
    stage = open_stage("lora")
    metrics = start(stage, compute, base, tokenizer, recipe, adapter=LORA)
    control = start(open_stage("shuffled"), compute, base, tokenizer, recipe, shuffled=True, adapter=LORA)
    assert metrics["accuracy"] > 0.9
    assert abs(control["accuracy"] - 0.5) < 0.2

    whole = load_model(stage.folder)
    assert isinstance(whole, Classifier)
    beside = load_adapter(Classifier.from_model(base, 2, torch_generator(1)), stage.folder / "adapter")
    beside.model.get_submodule("head").load_state_dict(whole.head.state_dict())
    learned = beside.parameters()
    assert metrics["adapter_parameters"] == sum(parameter.numel() for parameter in learned.values())
    original = base.state_dict()
    for name, parameter in beside.model.named_parameters():
        if name not in learned and name.startswith("trunk."):
            assert torch.equal(parameter, original[name]), name
            if not isinstance(beside.model.get_submodule(name.rpartition(".")[0]), LowRankLinear):
                assert torch.equal(whole.get_parameter(name), original[name]), name
    tokens_BT = torch.arange(1, 13).view(2, 6)
    torch.testing.assert_close(whole(tokens_BT), beside.model.eval()(tokens_BT), rtol=1e-5, atol=1e-5)


def test_beside_an_adapter_the_head_alone_learns_even_with_a_language_loss(tokenizer: Tokenizer) -> None:
    learner = Learner(decoder(tokenizer, tied_embeddings=False), 2, torch_generator(1), auxiliary=0.5)
    adapted = adapt(learner, LORA, torch_generator(2))
    learning = {name for name, parameter in learner.named_parameters() if parameter.requires_grad}
    assert learning == {f"classifier.{name}" for name in adapted.parameters()}
    assert "classifier.head.weight" in learning
    assert not any("head" in name or "embedding" in name for name in learning - {"classifier.head.weight"})


@pytest.mark.parametrize("adapter", [AdapterRecipe(), LORA], ids=["all", "lora"])
@pytest.mark.parametrize("kind", [decoder, reader])
def test_killed_it_ends_in_the_same_bits(
    kind: Callable[[Tokenizer], Model],
    adapter: AdapterRecipe,
    outcome_after_kills: Callable[..., dict[str, Tensor]],
    compute: Compute,
    tokenizer: Tokenizer,
) -> None:
    recipe = RECIPE.model_copy(update={"auxiliary_language_loss": 0.5 if kind is decoder else 0.0})

    def train(stage: Stage) -> object:
        return start(stage, compute, kind(tokenizer), tokenizer, recipe, adapter=adapter)

    assert_same_bits(outcome_after_kills(train, "killed", (6, 13)), outcome_after_kills(train, "undisturbed"))


@pytest.mark.parametrize("tied", [True, False])
def test_the_loss_is_gpt1s_classification_and_half_the_language_loss(
    tied: bool, compute: Compute, tokenizer: Tokenizer, tmp_path: Any
) -> None:
    model = decoder(tokenizer, tied_embeddings=tied).eval()
    learner = Learner(model, 2, torch_generator(3), auxiliary=0.5).eval()
    texts = [encode_text(tokenizer, one, CLASSES, reader=False, max_tokens=24) for one in examples(7)]
    parts = classification_parts(learner, texts, compute, pad_id=1, micro_batch_rows=3, noise_seed=0)
    found = differentiate({"loss": parts})["loss"]

    save_model(model, tmp_path, tokenizer)
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    language, count, classes = torch.zeros(()), 0, torch.zeros(())
    for text in texts:  # one by one: no padding, no denominators to share
        row = torch.tensor([text.tokens])
        output = reference(row, output_hidden_states=True)
        logits = output.logits[0, :-1]
        language = language + torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="sum")
        count += len(text.tokens) - 1
        scores = output.hidden_states[-1][0, -1] @ learner.classifier.head.weight.T
        classes = classes + torch.nn.functional.cross_entropy(scores[None], torch.tensor([text.class_number]))
    wanted = classes / len(texts) + 0.5 * language / count
    assert found.loss == pytest.approx(wanted.item(), rel=1e-5)
    wanted.backward()
    embedding = dict(learner.named_parameters())
    place = list(embedding).index("classifier.trunk.token_embedding.weight")
    torch.testing.assert_close(
        found.gradient[place], reference.get_input_embeddings().weight.grad, rtol=1e-3, atol=1e-6
    )


def test_a_reader_has_the_loss_of_bert_for_sequence_classification(
    compute: Compute, tokenizer: Tokenizer, tmp_path: Any
) -> None:
    learner = Learner(reader(tokenizer), 2, torch_generator(3), auxiliary=0.0).eval()
    pairs = [replace(one, second="so") if number % 2 else one for number, one in enumerate(examples(6))]
    texts = [encode_text(tokenizer, one, CLASSES, reader=True, max_tokens=24) for one in pairs]
    save_model(learner.classifier, tmp_path)
    reference = transformers.BertForSequenceClassification.from_pretrained(tmp_path).eval()
    batch = text_batch(texts, pad_id=tokenizer.reserved.pad)
    wanted = reference(
        input_ids=torch.from_numpy(batch.tokens_BT),
        attention_mask=torch.from_numpy(batch.segments_BT),
        token_type_ids=torch.from_numpy(batch.types_BT),
        labels=torch.from_numpy(batch.class_B),
    ).loss.item()
    parts = classification_parts(
        learner, texts, compute, pad_id=tokenizer.reserved.pad, micro_batch_rows=4, noise_seed=0
    )
    assert differentiate({"loss": parts})["loss"].loss == pytest.approx(wanted, rel=1e-5)


def test_texts_get_their_marks_and_lose_their_end_where_they_are_too_long(tokenizer: Tokenizer) -> None:
    one = LabeledText("1", "Anna is a baker.", "late", "Bert is a smith.")
    first, second = tokenizer.encode(one.text), tokenizer.encode(one.second)
    ids, reserved = tokenizer.reading, tokenizer.reserved
    whole = encode_text(tokenizer, one, CLASSES, reader=True, max_tokens=99)
    assert whole.tokens == [ids.cls, *first, ids.sep, *second, ids.sep]
    assert whole.types == [0] * (len(first) + 2) + [1] * (len(second) + 1)
    assert whole.class_number == 1
    single = encode_text(tokenizer, replace(one, second=""), CLASSES, reader=False, max_tokens=99)
    assert single.tokens == [reserved.end_of_text, *first, reserved.end]
    for limit in range(5, 30):
        for text in (one, replace(one, second="")):
            cut = encode_text(tokenizer, text, CLASSES, reader=True, max_tokens=limit)
            full = encode_text(tokenizer, text, CLASSES, reader=True, max_tokens=99)
            assert len(cut.tokens) == min(limit, len(full.tokens)) == len(cut.types)
            assert cut.tokens[-1] == ids.sep
            assert cut.tokens.count(ids.sep) == full.tokens.count(ids.sep)


def test_the_rate_rises_and_falls_in_lines() -> None:
    rates = [linear_rate(step, peak=2.0, num_steps=10, warmup_steps=2) for step in range(10)]
    np.testing.assert_allclose(rates, [1.0, 2.0, *np.linspace(2.0, 0.0, 9)[:-1]])
    assert num_classify_steps(RECIPE, 40) == 30


def test_every_field_changes_the_run(open_stage: Open, compute: Compute, tokenizer: Tokenizer) -> None:
    from tests.training.test_recipes import neutral, without_effect

    others: dict[str, Any] = {
        "num_epochs": 2.0,
        "batch_rows": 5,
        "max_tokens": 5,
        "learning_rate": 1e-3,
        "warmup_share": 0.5,
        "auxiliary_language_loss": 0.1,
        "evaluate_steps": 2,
        "optimizer": OptimizerRecipe(beta1=0.1),
    }

    def trace(name: str, recipe: ClassifyRecipe) -> str:
        stage = open_stage(name)
        start(stage, compute, decoder(tokenizer), tokenizer, recipe)
        return (stage.run.folder / "metrics.jsonl").read_text()

    plain = RECIPE.model_copy(update={"num_epochs": 1.0})
    assert without_effect(plain, others, trace) == neutral(ClassifyRecipe)


def test_what_cannot_be_learned_or_measured_is_said(open_stage: Open, compute: Compute, tokenizer: Tokenizer) -> None:
    with pytest.raises(RecipeError, match="which a reader sees"):
        start(open_stage("reader"), compute, reader(tokenizer), tokenizer)
    with pytest.raises(RecipeError, match="prefix cannot be merged"):
        start(open_stage("prefix"), compute, decoder(tokenizer), tokenizer, adapter=AdapterRecipe(method="prefix"))
    texts = examples(20)
    for train, heldout, problem in (
        ([replace(one, label="late") for one in texts], texts, "1 class"),
        (texts, [replace(one, label="never") for one in texts], "'never'"),
        (texts, [], "no held-out text"),
    ):
        with pytest.raises(DataError, match=problem):
            classify(
                open_stage(problem),
                RECIPE,
                compute,
                model=decoder(tokenizer),
                tokenizer=tokenizer,
                examples=train,
                heldout=heldout,
            )
