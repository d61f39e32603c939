"""Pretraining and then fine-tuning beats fine-tuning alone on 200 labels (Radford et al. 2018, section 5).

The task: which group does a word of a sentence belong to (animal, food, place, hobby, trade, thing)? The measured words
are never among the labelled ones, so that only what was read before can tell. The world's documents here hold no
exercises, in which the groups are asked for by name. Controls: the same model from random weights, and the pretrained
one with its labels given round, which says that nothing but the labels teaches the classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sanbai.data.labeled import LabeledText
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.seeds import python_random, torch_generator
from sanbai.lab.bench import FULL, Bench, shape
from sanbai.lab.trials import Phenomenon
from sanbai.model.heads import LanguageModel
from sanbai.training.classify import ClassifyRecipe
from sanbai.training.optimizer import OptimizerRecipe
from sanbai.world.tasks.classifying import GROUPS

SIZE = replace(FULL, vocab_size=2400, num_steps=1000)
"""Of the phenomena that share this text and this model: clozes, transfer, adapters."""
NUM_LABELS = 200
HELDOUT_SHARE = 0.4
SENTENCES = ("This is about {word}.", "I like {word}.", "{name} thinks of {word}.", "What of {word}?", "Here: {word}.")


def split_words(seed: int, *, heldout: bool) -> dict[str, list[str]]:
    """Return the words of each group that are measured, or those that are labelled."""
    sides: dict[str, list[str]] = {}
    for group, words in GROUPS.items():
        shuffled = sorted(words)
        python_random(seed, "split", group).shuffle(shuffled)
        cut = round(HELDOUT_SHARE * len(shuffled))
        sides[group] = shuffled[:cut] if heldout else shuffled[cut:]
    return sides


def labeled_words(names: tuple[str, ...], num: int, seed: int, *, heldout: bool) -> list[LabeledText]:
    """Return sentences with a word each, labelled with its group; held-out words are never among the others."""
    generator = python_random(seed, "words", "heldout" if heldout else "train")
    sides = split_words(seed, heldout=heldout)
    texts = []
    for number in range(num):
        group = generator.choice(list(sides))
        sentence = generator.choice(SENTENCES).format(word=generator.choice(sides[group]), name=generator.choice(names))
        texts.append(LabeledText(f"{'heldout' if heldout else 'train'}-{number}", sentence, group))
    return texts


def given_round(texts: list[LabeledText], seed: int) -> list[LabeledText]:
    """Return the texts with each other's labels."""
    labels = [text.label for text in texts]
    python_random(seed, "labels").shuffle(labels)
    return [LabeledText(text.id, text.text, label) for text, label in zip(texts, labels, strict=True)]


def pretrained_on_text(bench: Bench) -> tuple[Bench, Artifact]:
    """Return the bench of a world without exercises, and GPT-1's kind of model pretrained on its text."""
    without_exercises = bench.world.model_copy(update={"exercise_share": 0.0})
    bench = replace(bench, world=without_exercises)
    return bench, bench.pretrained(shape(bench.size, norm_place="after"))


def measure(bench: Bench) -> dict[str, float]:
    """Train the classifiers and return their accuracies."""
    bench, base = pretrained_on_text(bench)
    config = shape(bench.size, norm_place="after")
    fresh_config = config.with_vocabulary(bench.tokenizer.vocab_size)
    fresh = LanguageModel(fresh_config, torch_generator(bench.seed, "lab", "fresh"))
    pretrained: Any = bench.open(base)
    names = bench.village.strangers
    train = labeled_words(names, NUM_LABELS, bench.seed, heldout=False)
    heldout = labeled_words(names, bench.size.num_texts, bench.seed, heldout=True)
    recipe = ClassifyRecipe(
        num_epochs=12.0,
        batch_rows=16,
        max_tokens=32,
        learning_rate=5e-4,
        warmup_share=0.1,
        evaluate_steps=10_000,
        optimizer=OptimizerRecipe(beta2=0.999, weight_decay=0.01),
    )

    def accuracy(name: str, model: LanguageModel, texts: list[LabeledText]) -> float:
        made = bench.classifier(name, model, recipe, examples=texts, heldout=heldout, parents={"base": base})
        return float(made.metrics["accuracy"])

    return {
        "pretrained, then 200 labels": accuracy("pretrained", pretrained, train),
        "200 labels alone": accuracy("fresh", fresh, train),
        "pretrained, labels given round": accuracy("given round", pretrained, given_round(train, bench.seed)),
    }


TRANSFER = Phenomenon(
    name="transfer",
    claim="Generative pretraining lifts a classifier of few labels (GPT-1, Radford et al. 2018).",
    measure=measure,
    effect=("pretrained, then 200 labels",),
    control=("200 labels alone", "pretrained, labels given round"),
    size=SIZE,
)
