"""Classification fine-tuning: a pretrained model learns the class of a text, as GPT-1's and BERT's did.

Input: a model, labelled texts. Output: a classifier's folder; with an adapter only that and the head learn. Metrics a
step: `loss` (nats a text, with what the auxiliary loss adds), `grad_norm` (before clipping), `rate`; every
`evaluate_steps` and at the end `accuracy` and `classification_loss` of the held-out texts.

A reader (BERT) is given `cls text sep [second sep]` and read at its first position; a decoder (GPT-1) is given
`end_of_text text end [second end]` and read at its last. GPT-1 went on predicting the next token meanwhile: its loss is
classification + 0.5 · language (Radford et al. 2018, equation 5). Departures: one head for single texts and pairs, and
the language loss is a mean over the batch's tokens, not over texts of means over tokens.

Shapes: B texts, T positions, N learned tokens, C classes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from sanbai.data.labeled import LabeledText, classes_of
from sanbai.foundation.device import Compute, autocast
from sanbai.foundation.errors import DataError, RecipeError
from sanbai.foundation.files import read_json, write_json_atomic
from sanbai.foundation.recipe import RecipeSection
from sanbai.foundation.seeds import derive_seed, torch_generator
from sanbai.foundation.stage import Stage
from sanbai.model.adapters.adapter import Adapted, add_adapter, merge_adapter
from sanbai.model.adapters.recipe import AdapterRecipe
from sanbai.model.config import ModelConfig
from sanbai.model.experts import RouterReport
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import Model, save_model
from sanbai.model.reading_heads import Classifier
from sanbai.objectives.language import categorical_loss, chunked_next_token_loss
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.adapter_folder import NO_ADAPTER, write_adapter
from sanbai.training.checkpoint import Checkpoints, Weights
from sanbai.training.gradients import LossPart, add_gradient, differentiate
from sanbai.training.optimizer import Optimizer, OptimizerRecipe
from sanbai.training.order import endless_order
from sanbai.training.schedule import linear_rate


class ClassifyRecipe(RecipeSection):
    """Section `[classify]`. Defaults: GPT-1's (Radford et al. 2018, section 4.1)."""

    num_epochs: float = Field(default=3.0, gt=0.0)
    """How often the texts are read."""
    batch_rows: int = Field(default=32, ge=1)
    """Texts a step."""
    micro_batch_rows: int = Field(default=8, ge=1)
    """Texts computed at once; changes memory, not the mathematics."""
    max_tokens: int = Field(default=512, ge=5)
    """Longest input; longer texts lose their end."""
    learning_rate: float = Field(default=6.25e-5, gt=0.0, le=1.0)
    """Peak rate; a line takes it down to 0."""
    warmup_share: float = Field(default=0.002, ge=0.0, lt=1.0)
    """Share of the steps in which the rate rises."""
    auxiliary_language_loss: float = Field(default=0.5, ge=0.0)
    """Weight of the next-token loss beside the classification's. 0 for models that read from both sides."""
    evaluate_steps: int = Field(default=500, ge=1)
    """Steps between two evaluations."""
    checkpoint_steps: int = Field(default=200, ge=1)
    """Steps between two checkpoints."""
    optimizer: OptimizerRecipe = OptimizerRecipe(beta2=0.999, weight_decay=0.01)
    """Section `[classify.optimizer]`."""


@dataclass(frozen=True, slots=True)
class TextBatch:
    """Texts as rows.

    Attributes:
        tokens_BT: int64 ids, the pad id behind a text.
        segments_BT: int64, 1 on the text, 0 on padding.
        types_BT: int64, 0 in a first text, 1 in a second one.
        class_B: int64.
    """

    tokens_BT: NDArray[np.int64]
    segments_BT: NDArray[np.int64]
    types_BT: NDArray[np.int64]
    class_B: NDArray[np.int64]


def classify_misfit(recipe: ClassifyRecipe, config: ModelConfig, adapter: AdapterRecipe = NO_ADAPTER) -> str:
    """Return why a model of this shape cannot be fine-tuned by the recipe, or nothing where it can."""
    if config.encoder_layers or "prefix" in config.masks:
        return "a classifier stands on a decoder that looks back, or on a reader of full masks; choose such a model"
    if config.bidirectional and recipe.auxiliary_language_loss:
        return "classify.auxiliary_language_loss predicts the next token, which a reader sees; set it to 0"
    if adapter.method not in {"none", "lora"}:
        return (
            f"adapter.method {adapter.method} cannot be merged into the weights that a classifier's folder holds; "
            "choose lora or none"
        )
    return ""


def num_classify_steps(recipe: ClassifyRecipe, num_examples: int) -> int:
    """Return the steps in which the texts are read `num_epochs` times."""
    return max(1, round(recipe.num_epochs * num_examples / recipe.batch_rows))


def classify(
    stage: Stage,
    recipe: ClassifyRecipe,
    compute: Compute,
    *,
    model: Model,
    tokenizer: Tokenizer,
    examples: Sequence[LabeledText],
    heldout: Sequence[LabeledText],
    adapter: AdapterRecipe = NO_ADAPTER,
) -> dict[str, Any]:
    """Fine-tune a copy of a model on labelled texts and write the classifier into the stage's folder.

    LoRA is written into `adapter/` in PEFT's layout, and its products are added to the weights of the classifier, which
    is written as ever.

    Args:
        stage: one step of its run is one optimizer step, `num_classify_steps` in all.
        recipe: section `[classify]`.
        compute: threads, precision, device; already applied to the process.
        model: a pretrained decoder or reader; not changed.
        tokenizer: saved beside the classifier.
        examples: to learn from.
        heldout: only measured, of the same classes.
        adapter: section `[adapter]`, LoRA or none.

    Returns:
        The last evaluation, the steps, the classes, and with an adapter the number of its parameters.

    Raises:
        RecipeError: the recipe or the adapter does not fit the model.
        ModelError: the adapter finds no place in it.
        DataError: fewer than two classes, a held-out class that is never learned, or no held-out text.
        Interrupted: asked to stop; the state is saved.
    """
    if problem := classify_misfit(recipe, model.config, adapter):
        raise RecipeError(problem)
    classes = classes_of(examples)
    check_classes(heldout, classes)
    limit = min(recipe.max_tokens, model.config.max_positions)
    texts, heldout_texts = (
        [encode_text(tokenizer, one, classes, reader=model.config.bidirectional, max_tokens=limit) for one in each]
        for each in (examples, heldout)
    )
    pad = tokenizer.reserved.pad

    head = torch_generator(stage.seed, "classify", "head")
    learner = Learner(model, len(classes), head, auxiliary=recipe.auxiliary_language_loss).to(compute.device)
    adapted = None
    if adapter.method != "none":
        adapted = adapt(learner, adapter, torch_generator(stage.seed, "classify", "adapter"))
    optimizer = Optimizer(learner, recipe.optimizer)
    checkpoints = Checkpoints(stage.run, recipe.checkpoint_steps, model=Weights(learner), optimizer=optimizer)
    step, _ = checkpoints.resume()
    num_steps = num_classify_steps(recipe, len(texts))
    warmup_steps = round(recipe.warmup_share * num_steps)
    order_seed = derive_seed(stage.seed, "classify", "order")
    while step < num_steps:
        start = step * recipe.batch_rows
        chosen = endless_order(len(texts), start=start, count=recipe.batch_rows, seed=order_seed)
        parts = classification_parts(
            learner,
            [texts[index] for index in chosen],
            compute,
            pad_id=pad,
            micro_batch_rows=recipe.micro_batch_rows,
            noise_seed=derive_seed(stage.seed, "classify", "noise", step),
        )
        done = differentiate({"loss": parts})["loss"]
        add_gradient(learner, done.gradient)
        rate = linear_rate(step, peak=recipe.learning_rate, num_steps=num_steps, warmup_steps=warmup_steps)
        grad_norm = optimizer.step(rate)
        step += 1
        stage.run.record(step, loss=done.loss, grad_norm=grad_norm, rate=rate)
        if step % recipe.evaluate_steps == 0 and step < num_steps:
            stage.run.record(step, **measure_classes(learner.classifier, heldout_texts, compute, pad_id=pad))
        checkpoints.after_step(step, {})

    metrics: dict[str, Any] = measure_classes(learner.classifier, heldout_texts, compute, pad_id=pad)
    stage.run.record(step, **metrics)
    metrics |= {"steps": num_steps, "classes": list(classes)}
    if adapted is not None:
        metrics["adapter_parameters"] = _save_and_merge(adapted, stage, learner.classifier.head)
    save_model(learner.classifier, stage.folder, tokenizer)
    name_classes(stage.folder, classes)
    return metrics


class Learner(nn.Module):
    """A classifier and, where the language loss is wanted, the language model whose trunk it shares."""

    def __init__(self, model: Model, num_classes: int, generator: torch.Generator, *, auxiliary: float) -> None:
        """Copy what a model has learnt; the classifier's head is new.

        Args:
            model: a decoder or a reader; of decoders a `LanguageModel` where `auxiliary` is above 0.
            num_classes: C.
            generator: of the new head.
            auxiliary: weight of the language loss.
        """
        super().__init__()
        self.auxiliary = auxiliary
        self.classifier = Classifier.from_model(model, num_classes, generator)
        self.language: LanguageModel | None = None
        if auxiliary:
            assert isinstance(model, LanguageModel)
            self.language = copy.deepcopy(model)
            self.language.trunk = self.classifier.trunk


def adapt(learner: Learner, recipe: AdapterRecipe, generator: torch.Generator) -> Adapted:
    """Give a learner's classifier a fresh adapter; that and the head learn, everything else stops.

    Raises:
        ModelError: the adapter finds no place in the model.
    """
    learner.requires_grad_(False)
    adapted = add_adapter(learner.classifier, recipe, generator)
    learner.classifier.head.requires_grad_(True)
    return adapted


@dataclass(frozen=True, slots=True)
class EncodedText:
    """A text as a model reads it: ids, their types, and its class's number."""

    tokens: list[int]
    types: list[int]
    class_number: int


def encode_text(
    tokenizer: Tokenizer, example: LabeledText, classes: Sequence[str], *, reader: bool, max_tokens: int
) -> EncodedText:
    """Return a labelled text with its marks; one that is too long loses its end, of two the longer one or both.

    Raises:
        UsageError: a reader's tokenizer has no marks for it.
    """
    if reader:
        opens, closes = tokenizer.reading.cls, tokenizer.reading.sep
    else:
        opens, closes = tokenizer.reserved.end_of_text, tokenizer.reserved.end
    texts = [tokenizer.encode(text) for text in (example.text, example.second) if text]
    room = max_tokens - len(texts) - 1
    if len(texts) == 2:
        del texts[1][max(room // 2, room - len(texts[0])) :]
        room -= len(texts[1])
    del texts[0][room:]
    tokens, types = [opens], [0]
    for number, text in enumerate(texts):
        tokens += [*text, closes]
        types += [number] * (len(text) + 1)
    return EncodedText(tokens, types, classes.index(example.label))


def check_classes(heldout: Sequence[LabeledText], classes: Sequence[str]) -> None:
    """Refuse held-out texts that measure nothing.

    Raises:
        DataError: there are none, or one's class is never learned.
    """
    if not heldout:
        raise DataError("no held-out text to measure the classifier by; give more texts")
    if unknown := sorted({example.label for example in heldout} - set(classes)):
        raise DataError(f"held-out texts have the class {unknown[0]!r}, which no text to learn from has; give more")


def text_batch(texts: Sequence[EncodedText], *, pad_id: int) -> TextBatch:
    """Return texts as rows of the longest one's length."""
    shape = (len(texts), max(len(text.tokens) for text in texts))
    tokens_BT = np.full(shape, pad_id, dtype=np.int64)
    segments_BT, types_BT = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for line, text in enumerate(texts):
        here = slice(0, len(text.tokens))
        tokens_BT[line, here], types_BT[line, here], segments_BT[line, here] = text.tokens, text.types, 1
    return TextBatch(tokens_BT, segments_BT, types_BT, np.array([text.class_number for text in texts]))


def classification_parts(
    learner: Learner,
    texts: Sequence[EncodedText],
    compute: Compute,
    *,
    pad_id: int,
    micro_batch_rows: int,
    noise_seed: int,
) -> list[LossPart]:
    """Return the parts of mean classification loss + weight · mean next-token loss, in nats.

    Args:
        learner: carries the gradient; its weight is the language loss's.
        texts: of one step.
        compute: precision and device.
        pad_id: stands behind texts.
        micro_batch_rows: texts of a part.
        noise_seed: of the experts' jitter and dropout.
    """
    num_targets = sum(len(text.tokens) - 1 for text in texts)

    def part_of(number: int, part: Sequence[EncodedText]) -> LossPart:
        def loss() -> Tensor:
            with autocast(compute):
                device = learner.classifier.head.weight.device
                generator = torch.Generator(device).manual_seed(derive_seed(noise_seed, "part", number))
                return _loss(learner, text_batch(part, pad_id=pad_id), len(texts), num_targets, generator)

        return LossPart(learner, loss)

    starts = range(0, len(texts), micro_batch_rows)
    return [part_of(number, texts[start : start + micro_batch_rows]) for number, start in enumerate(starts)]


def _loss(learner: Learner, batch: TextBatch, num_texts: int, num_targets: int, generator: torch.Generator) -> Tensor:
    classifier = learner.classifier
    tokens_BT, segments_BT, types_BT, class_B = _to_device(batch, classifier)
    reports: list[RouterReport] = []
    hidden_BTD = classifier.trunk(
        tokens_BT, segments_BT=segments_BT, types_BT=types_BT, reports=reports, generator=generator
    )
    loss = categorical_loss(classifier.logits(hidden_BTD, segments_BT), class_B, denominator=num_texts)
    if learner.language is not None:
        before_N = segments_BT[:, 1:].flatten().nonzero().squeeze(1)
        hidden_ND = hidden_BTD[:, :-1].flatten(0, 1).index_select(0, before_N)
        target_N = tokens_BT[:, 1:].flatten()[before_N]
        weight_N = torch.full_like(target_N, learner.auxiliary / num_targets, dtype=torch.float32)
        loss = loss + chunked_next_token_loss(hidden_ND, learner.language.head_weight, target_N, weight_N)
    for report in reports:
        loss = loss + report.loss * (len(class_B) / num_texts)
    return loss


@torch.no_grad()
def measure_classes(
    classifier: Classifier, texts: Sequence[EncodedText], compute: Compute, *, pad_id: int, batch_rows: int = 64
) -> dict[str, float]:
    """Return `accuracy` and `classification_loss` (nats a text) of texts that are not learned from."""
    was_training = classifier.training
    classifier.eval()
    right, loss = 0, 0.0
    for start in range(0, len(texts), batch_rows):
        tokens_BT, segments_BT, types_BT, class_B = _to_device(
            text_batch(texts[start : start + batch_rows], pad_id=pad_id), classifier
        )
        with autocast(compute):
            logits_BC = classifier(tokens_BT, segments_BT=segments_BT, types_BT=types_BT)
        right += int((logits_BC.argmax(dim=-1) == class_B).sum())
        loss += categorical_loss(logits_BC, class_B, denominator=len(texts)).item()
    classifier.train(was_training)
    return {"accuracy": right / len(texts), "classification_loss": loss}


def name_classes(folder: Path, classes: Sequence[str]) -> None:
    """Write the classes' names into a saved classifier's `config.json`, as transformers does."""
    settings = read_json(folder / "config.json")
    settings["id2label"] = {str(number): name for number, name in enumerate(classes)}
    settings["label2id"] = {name: number for number, name in enumerate(classes)}
    write_json_atomic(folder / "config.json", settings)


def _save_and_merge(adapted: Adapted, stage: Stage, head: nn.Linear) -> int:
    """Write the adapter, add it to the classifier's weights and return how many parameters it had, the head's aside."""
    learned = sum(parameter.numel() for parameter in adapted.parameters().values())
    write_adapter(adapted, stage.folder, base=stage.parents.get("base"))
    merge_adapter(adapted)
    return learned - sum(parameter.numel() for parameter in head.parameters())


def _to_device(batch: TextBatch, classifier: Classifier) -> tuple[Tensor, ...]:
    device = classifier.head.weight.device
    arrays = (batch.tokens_BT, batch.segments_BT, batch.types_BT, batch.class_B)
    return tuple(torch.from_numpy(array).to(device) for array in arrays)
