from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tests.training.conftest import NAMES, TRADES, Open, assert_same_bits
from torch import Tensor

from sanbai.data.masking import MaskedBatch
from sanbai.data.packing import EncodedItems, PackedBatch
from sanbai.data.span_corruption import SourceTargetBatch
from sanbai.foundation.device import Compute
from sanbai.foundation.errors import RecipeError
from sanbai.foundation.seeds import torch_generator
from sanbai.foundation.stage import Stage
from sanbai.model.config import ModelConfig
from sanbai.model.encoder_decoder import EncoderDecoder
from sanbai.model.experts import ExpertsConfig
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import load_model, save_model
from sanbai.model.reading_heads import MaskedModel, MaskedPairModel
from sanbai.text.chat_template import EncodedConversation
from sanbai.text.reserved import READING_MARKERS, sentinel_markers
from sanbai.text.tokenizer import Tokenizer, train_tokenizer
from sanbai.training.gradients import differentiate
from sanbai.training.objective import ObjectiveName, loss_parts, measure, misfit, new_model, open_batches
from sanbai.training.pretrain import PretrainRecipe, pretrain

TEXTS = [f"{name} is a {trade}. {name} is {trade}." for name, trade in zip(NAMES, TRADES, strict=True)]
SHAPE: dict[str, Any] = {
    "num_layers": 2,
    "width": 32,
    "num_heads": 2,
    "num_kv_heads": 2,
    "head_width": 16,
    "feed_forward_width": 64,
    "max_positions": 64,
    "initial_std": 0.1,
}
READER: dict[str, Any] = {
    **SHAPE,
    "masks": ("full",),
    "feed_forward": "gelu",
    "norm": "layer",
    "norm_place": "after",
    "embedding_norm": True,
    "positions": "learned",
    "num_token_types": 2,
    "bias": True,
}
WRITER: dict[str, Any] = {
    **SHAPE,
    "encoder_layers": 2,
    "feed_forward": "relu",
    "positions": "relative",
    "scaled_attention": False,
    "scaled_head": True,
}
SWITCH = {**WRITER, "sparse_layers": "every_second", "experts": ExpertsConfig(num_experts=2, dropout=0.1)}
CASES: dict[str, tuple[ObjectiveName, dict[str, Any]]] = {
    "masked": ("masked", READER),
    "entity masked": ("entity_masked", READER),
    "prefix, decoder": ("prefix", {**SHAPE, "masks": ("prefix",)}),
    "prefix, encoder": ("prefix", WRITER),
    "span corruption": ("span_corruption", WRITER),
    "span corruption, experts": ("span_corruption", SWITCH),
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    markers = (*READING_MARKERS.values(), *sentinel_markers(20))
    return train_tokenizer(TEXTS * 3, vocab_size=340, extra_markers=markers)


@pytest.fixture(scope="module")
def documents(tokenizer: Tokenizer) -> EncodedItems:
    mark = tokenizer.reserved.end_of_text
    rows = [[mark, *tokenizer.encode(text), mark] for text in TEXTS]
    return EncodedItems([EncodedConversation(row, [1] * len(row)) for row in rows])


def recipe_of(objective: ObjectiveName, **changes: Any) -> PretrainRecipe:
    fields: dict[str, Any] = {
        "objective": objective,
        "num_steps": 12,
        "row_length": 40,
        "batch_rows": 4,
        "micro_batch_rows": 2,
        "learning_rate": 1e-2,
        "warmup_steps": 4,
        "checkpoint_steps": 3,
    }
    return PretrainRecipe(**{**fields, **changes})


def start(
    stage: Stage,
    recipe: PretrainRecipe,
    compute: Compute,
    shape: dict[str, Any],
    tokenizer: Tokenizer,
    documents: EncodedItems,
    evaluate: Callable[[Any], dict[str, float]] = lambda _: {},
) -> dict[str, Any]:
    return pretrain(
        stage,
        recipe,
        compute,
        config=ModelConfig(**shape),
        tokenizer=tokenizer,
        items=documents,
        evaluate=evaluate,
        names=NAMES,
    )


def losses(stage: Stage) -> list[float]:
    rows = [json.loads(line) for line in (stage.run.folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


@pytest.mark.parametrize("case", CASES)
def test_a_tiny_model_learns_its_few_documents(
    case: str, open_stage: Open, compute: Compute, tokenizer: Tokenizer, documents: EncodedItems
) -> None:
    objective, shape = CASES[case]
    stage = open_stage()
    recipe = recipe_of(objective, num_steps=150, warmup_steps=15, batch_rows=8, micro_batch_rows=8)
    start(stage, recipe, compute, shape, tokenizer, documents)
    curve = losses(stage)
    assert np.mean(curve[-20:]) < 0.45 * curve[0]


@pytest.mark.parametrize("objective", ["masked", "span_corruption"])
def test_control_tokens_that_nothing_foretells_are_not_learned(
    objective: ObjectiveName, open_stage: Open, compute: Compute, tokenizer: Tokenizer
) -> None:
    """Every document is noise, and none comes back: the best possible loss is the logarithm of the ids it is of."""
    ids = np.arange(280, 296)
    mark = tokenizer.reserved.end_of_text
    noise = np.random.default_rng(1).choice(ids, size=(700, 30))
    noise[:, 10] = tokenizer.encode("a.")[-1]  # a sentence's end, for pairs
    items = EncodedItems([EncodedConversation([mark, *row, mark], [1] * 32) for row in noise.tolist()])
    seen: dict[str, float] = {}

    def evaluate(model: Any) -> dict[str, float]:
        batch = next(
            open_batches(
                objective, items, tokenizer, row_length=40, batch_rows=64, seed=9, to_encoder=True, next_sentence=False
            )
        )
        seen.update(measure(model, batch, compute, micro_batch_rows=64))
        return {}

    recipe = recipe_of(objective, num_steps=80, next_sentence=False, batch_rows=8, micro_batch_rows=8)
    start(open_stage(), recipe, compute, dict(CASES)[objective.replace("_", " ")][1], tokenizer, items, evaluate)
    if objective == "masked":
        assert seen["masked_accuracy"] < 0.2
        assert seen["masked_loss"] > 0.9 * np.log(len(ids))
    else:  # of the written tokens, sentinels and the end can be foretold: about every third or fourth
        assert seen["written_loss"] > 0.55 * np.log(len(ids))


@pytest.mark.parametrize("case", CASES)
def test_killed_twice_it_ends_in_the_same_bits(
    case: str,
    outcome_after_kills: Callable[..., dict[str, Tensor]],
    compute: Compute,
    tokenizer: Tokenizer,
    documents: EncodedItems,
) -> None:
    objective, shape = CASES[case]

    def train(stage: Stage) -> object:
        return start(stage, recipe_of(objective), compute, shape, tokenizer, documents)

    assert_same_bits(outcome_after_kills(train, "killed", (5, 11)), outcome_after_kills(train, "undisturbed"))


@pytest.mark.parametrize("case", CASES)
def test_a_loss_in_parts_has_the_gradient_of_the_whole(
    case: str, compute: Compute, tokenizer: Tokenizer, documents: EncodedItems
) -> None:
    objective, shape = CASES[case]
    if "experts" in case:
        shape = {**shape, "experts": ExpertsConfig(num_experts=2, jitter=0.0, dropless=True, balance_coef=0.0)}
    model = new_model(objective, ModelConfig(**shape, vocab_size=tokenizer.vocab_size), torch_generator(1))
    batch = next(
        open_batches(
            objective,
            documents,
            tokenizer,
            row_length=40,
            batch_rows=5,
            seed=1,
            to_encoder=bool(model.config.encoder_layers),
            names=NAMES,
        )
    )
    whole, parts = (
        differentiate({"loss": loss_parts(model, batch, compute, micro_batch_rows=rows, noise_seed=1)})["loss"]
        for rows in (5, 2)
    )
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    for left, right in zip(whole.gradient, parts.gradient, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)


def test_masked_pairs_have_the_loss_of_bert_for_pretraining(
    compute: Compute, tokenizer: Tokenizer, documents: EncodedItems, tmp_path: Any
) -> None:
    config = ModelConfig(**READER, vocab_size=tokenizer.vocab_size)
    model = MaskedPairModel(config, torch_generator(2)).eval()
    save_model(model, tmp_path, tokenizer)
    reference = transformers.BertForPreTraining.from_pretrained(tmp_path).eval()
    batch = next(open_batches("masked", documents, tokenizer, row_length=40, batch_rows=6, seed=3))
    assert isinstance(batch, MaskedBatch)
    labels = torch.from_numpy(np.where(batch.loss_mask_BT, batch.targets_BT, -100))
    wanted = reference(
        input_ids=torch.from_numpy(batch.tokens_BT),
        attention_mask=torch.from_numpy(batch.segments_BT),
        token_type_ids=torch.from_numpy(batch.types_BT),
        labels=labels,
        next_sentence_label=torch.from_numpy(batch.unrelated_B),
    ).loss.item()
    found = differentiate({"loss": loss_parts(model, batch, compute, micro_batch_rows=4, noise_seed=0)})["loss"].loss
    assert found == pytest.approx(wanted, rel=1e-5)
    measured = measure(model, batch, compute, micro_batch_rows=4)
    assert measured["masked_loss"] + measured["next_sentence_loss"] == pytest.approx(wanted, rel=1e-5)


def test_span_corruption_has_the_loss_of_t5(
    compute: Compute, tokenizer: Tokenizer, documents: EncodedItems, tmp_path: Any
) -> None:
    model = EncoderDecoder(ModelConfig(**WRITER, vocab_size=tokenizer.vocab_size), torch_generator(2)).eval()
    save_model(model, tmp_path, tokenizer)
    reference = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path).eval()
    # One text a row: transformers knows no packing.
    batch = next(open_batches("span_corruption", documents, tokenizer, row_length=16, batch_rows=5, seed=3))
    assert isinstance(batch, SourceTargetBatch)
    assert batch.source_segments_BM.max() == 1
    wanted = reference(
        input_ids=torch.from_numpy(batch.source_BM),
        attention_mask=torch.from_numpy((batch.source_segments_BM != 0).astype(np.int64)),
        labels=torch.from_numpy(np.where(batch.target_segments_BT != 0, batch.targets_BT, -100)),
    ).loss.item()
    found = differentiate({"loss": loss_parts(model, batch, compute, micro_batch_rows=2, noise_seed=0)})["loss"].loss
    assert found == pytest.approx(wanted, rel=1e-5)


def test_packed_source_and_target_have_the_loss_of_each_text_alone(
    compute: Compute, tokenizer: Tokenizer, documents: EncodedItems
) -> None:
    model = EncoderDecoder(ModelConfig(**WRITER, vocab_size=tokenizer.vocab_size), torch_generator(2)).eval()
    batch = next(open_batches("span_corruption", documents, tokenizer, row_length=64, batch_rows=2, seed=3))
    assert isinstance(batch, SourceTargetBatch)
    assert batch.source_segments_BM.max() > 1
    total, count = 0.0, 0
    for row in range(2):
        for segment in range(1, int(batch.source_segments_BM[row].max()) + 1):
            read, written = batch.source_segments_BM[row] == segment, batch.target_segments_BT[row] == segment
            logits = model(
                torch.from_numpy(batch.source_BM[row][read])[None],
                torch.from_numpy(batch.decoder_BT[row][written])[None],
            )
            target = torch.from_numpy(batch.targets_BT[row][written])
            total += torch.nn.functional.cross_entropy(logits[0], target, reduction="sum").item()
            count += int(written.sum())
    found = differentiate({"loss": loss_parts(model, batch, compute, micro_batch_rows=2, noise_seed=0)})["loss"].loss
    assert found == pytest.approx(total / count, rel=1e-5)


def test_a_prefix_language_model_sees_its_prefix_and_nothing_that_it_must_write(
    tokenizer: Tokenizer, documents: EncodedItems
) -> None:
    """A change of one token changes the logits of exactly the places that an explicit loop lets see it."""
    config = ModelConfig(**{**SHAPE, "masks": ("prefix",), "num_layers": 1}, vocab_size=tokenizer.vocab_size)
    model = LanguageModel(config, torch_generator(4)).double().eval()
    batch = next(open_batches("prefix", documents, tokenizer, row_length=40, batch_rows=2, seed=5))
    assert isinstance(batch, PackedBatch)
    assert batch.prefix_BT is not None

    def logits(tokens: np.ndarray[Any, Any]) -> Tensor:
        inputs = (tokens, batch.positions_BT, batch.segments_BT, batch.prefix_BT)
        row, positions, segments, prefix = (torch.from_numpy(array) for array in inputs)  # type: ignore[arg-type]
        return model(row, positions_BT=positions, segments_BT=segments, prefix_BT=prefix).detach()

    plain = logits(batch.tokens_BT)
    segments, prefix = batch.segments_BT[0], batch.prefix_BT[0]
    for key in range(0, 40, 3):
        tokens = batch.tokens_BT.copy()
        tokens[0, key] = 290 if tokens[0, key] != 290 else 291
        changed = (logits(tokens)[0] - plain[0]).abs().amax(dim=-1) > 1e-12
        for query in range(40):
            sees = segments[query] == segments[key] and (key <= query or bool(prefix[key]))
            assert bool(changed[query]) is bool(sees), (query, key)
            if batch.loss_mask_BT[0, key] and query == key - 1:
                assert not changed[query], "what is to be written was seen"


def test_a_prefix_language_model_comes_back_from_its_folder(tokenizer: Tokenizer, tmp_path: Any) -> None:
    config = ModelConfig(**{**SHAPE, "masks": ("prefix",)}, vocab_size=tokenizer.vocab_size)
    model = LanguageModel(config, torch_generator(4))
    save_model(model, tmp_path, tokenizer)
    loaded = load_model(tmp_path)
    assert isinstance(loaded, LanguageModel)
    assert loaded.config.masks[0] == "prefix"
    tokens = torch.tensor([[300, 301, 302, 303]])
    prefix = torch.tensor([[True, True, False, False]])
    torch.testing.assert_close(loaded(tokens, prefix_BT=prefix), model(tokens, prefix_BT=prefix))
    # Without a prefix other programs read it as it reads itself.
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(reference(tokens).logits, model(tokens), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("objective", "shape", "wanted"),
    [
        ("masked", SHAPE, 'model.masks = \\["full"\\]'),
        ("causal", READER, "must not be seen"),
        ("causal", WRITER, "must not be seen"),
        ("span_corruption", SHAPE, "encoder_layers"),
        ("prefix", SHAPE, 'model.masks = \\["prefix"\\]'),
    ],
)
def test_a_shape_that_cannot_learn_the_objective_is_refused(
    objective: ObjectiveName,
    shape: dict[str, Any],
    wanted: str,
    open_stage: Open,
    compute: Compute,
    tokenizer: Tokenizer,
    documents: EncodedItems,
) -> None:
    with pytest.raises(RecipeError, match=wanted):
        start(open_stage(), recipe_of(objective), compute, shape, tokenizer, documents)
    assert not any(misfit(name, ModelConfig(**fitting)) for name, fitting in CASES.values())


def test_next_sentence_prediction_is_the_recipes_choice(tokenizer: Tokenizer) -> None:
    config = ModelConfig(**READER, vocab_size=tokenizer.vocab_size)
    assert isinstance(new_model("masked", config, torch_generator(1)), MaskedPairModel)
    assert isinstance(new_model("masked", config, torch_generator(1), next_sentence=False), MaskedModel)


@pytest.mark.parametrize("next_sentence", [True, False])
def test_the_recipe_says_how_many_tokens_are_masked(
    open_stage: Open, compute: Compute, tokenizer: Tokenizer, documents: EncodedItems, next_sentence: bool
) -> None:
    for share in (0.15, 0.4):
        batch = next(
            open_batches(
                "masked",
                documents,
                tokenizer,
                row_length=40,
                batch_rows=16,
                seed=3,
                next_sentence=next_sentence,
                mask_share=share,
            )
        )
        assert isinstance(batch, MaskedBatch)
        ordinary_BT = ~np.isin(batch.targets_BT, sorted(tokenizer.reserved_ids))
        wanted = [max(1, round(share * int(row.sum()))) for row in ordinary_BT]
        assert batch.loss_mask_BT.sum(axis=1).tolist() == wanted

    def losses(share: float) -> str:
        stage = open_stage(f"share {share}")
        recipe = recipe_of("masked", num_steps=2, next_sentence=next_sentence, mask_share=share)
        start(stage, recipe, compute, READER, tokenizer, documents)
        return (stage.run.folder / "metrics.jsonl").read_text()

    assert losses(0.15) != losses(0.4)
