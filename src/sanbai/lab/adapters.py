"""LoRA and P-tuning reach full fine-tuning's accuracy, or nearly, with a fiftieth of the parameters or less.

LoRA: Hu et al. 2021, arXiv:2106.09685, table 2; P-tuning: Liu et al. 2021, arXiv:2103.10385; its second version, which
its authors made for small models: Liu et al. 2021, arXiv:2110.07602. The base is that of `transfer.py`, the task a
harder one of its kind: of two words the sentence means one and denies the other, before it or behind it; which group
does the one meant belong to? Measured on words that were never labelled. (With a single word the head alone on the
frozen base reaches 94 % of full fine-tuning, and no adapter is needed.) Each way of tuning gets the same texts in the
same order and a rate of its own; all learn the classes' head. LoRA stands beside query, key, value and feed-forward,
P-tuning writes vectors before each text, P-tuning v2 keys and values before it in every layer.

What would refute it: below 90 % of full fine-tuning's accuracy. Controls: the labels given round, of all adapters; an
adapter and a head at random with nothing trained; and the head alone on the frozen base, which says what the adapters
add. `SHARE` is how many of the model's parameters may learn, head included; `tuned` counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sanbai.data.labeled import LabeledText, classes_of
from sanbai.foundation.seeds import derive_seed, python_random, torch_generator
from sanbai.lab.bench import Bench
from sanbai.lab.transfer import SIZE, given_round, pretrained_on_text, split_words
from sanbai.lab.trials import Phenomenon
from sanbai.model.adapters.recipe import AdapterRecipe
from sanbai.model.heads import LanguageModel
from sanbai.model.reading_heads import Classifier
from sanbai.training.classify import Learner, adapt, classification_parts, encode_text, measure_classes
from sanbai.training.gradients import add_gradient, differentiate
from sanbai.training.optimizer import Optimizer, OptimizerRecipe
from sanbai.training.order import endless_order
from sanbai.training.schedule import linear_rate

Way = Literal["full", "lora", "p_tuning", "prefix", "head"]
"""What learns: everything, an adapter and the head, the head alone."""
SHARE = 0.02
"""Of the model's parameters, adapter and head must stay below."""
ADAPTERS: dict[Way, AdapterRecipe] = {
    "lora": AdapterRecipe(method="lora", rank=2, alpha=4.0, targets=("query", "key", "value", "up", "down")),
    "p_tuning": AdapterRecipe(method="p_tuning", num_virtual_tokens=20, encoder_width=48),
    "prefix": AdapterRecipe(method="prefix", num_virtual_tokens=20),
}
#: Of two or three tried on seed 0, which is no trial, after 600 steps of pretraining.
RATES: dict[Way, float] = {"full": 5e-4, "lora": 2e-3, "p_tuning": 1e-2, "prefix": 3e-2, "head": 1e-2}
NUM_LABELS = 400
NUM_STEPS = 1000
BATCH_ROWS = 16
MAX_TOKENS = 48
SENTENCES = (
    "This is about {word}, not about {other}.",
    "Not {other}: I like {word}.",
    "{name} thinks of {word}, never of {other}.",
    "What of {word} instead of {other}?",
    "Here: no {other}, but {word}.",
    "Instead of {other}, {name} likes {word}.",
)


def labeled_choices(names: Sequence[str], num: int, seed: int, *, heldout: bool) -> list[LabeledText]:
    """Return sentences that mean one word and deny one of another group, labelled with the first one's group."""
    generator = python_random(seed, "choices", "heldout" if heldout else "train")
    sides = split_words(seed, heldout=heldout)
    texts = []
    for number in range(num):
        group, foreign = generator.sample(list(sides), 2)
        word, other = generator.choice(sides[group]), generator.choice(sides[foreign])
        sentence = generator.choice(SENTENCES).format(word=word, other=other, name=generator.choice(names))
        texts.append(LabeledText(f"{'heldout' if heldout else 'train'}-{number}", sentence, group))
    return texts


@dataclass(frozen=True)
class Tuned:
    """A classifier's accuracy on texts that it has not learned from, and how many parameters learned."""

    accuracy: float
    learned: int
    total: int
    """Of the model and its head, without the adapter."""


def prepare(base: LanguageModel, num_classes: int, way: Way, seed: int) -> tuple[Learner, int]:
    """Return a copy of the base with a new head, of which what `way` says may learn, and its number of parameters."""
    learner = Learner(base, num_classes, torch_generator(seed, "lab", "adapters", "head"), auxiliary=0.0)
    classifier: Classifier = learner.classifier
    total = sum(parameter.numel() for parameter in classifier.parameters())
    if way in ADAPTERS:
        adapt(learner, ADAPTERS[way], torch_generator(seed, "lab", "adapters", way))
    elif way == "head":
        learner.requires_grad_(False)
        classifier.head.requires_grad_(True)
    return learner, total


def tuned(
    bench: Bench,
    base: LanguageModel,
    way: Way,
    examples: Sequence[LabeledText],
    heldout: Sequence[LabeledText],
    *,
    num_steps: int,
) -> Tuned:
    """Tune a copy of the base and measure it."""
    classes = classes_of(examples)
    learner, total = prepare(base, len(classes), way, bench.seed)
    learner.to(bench.compute.device).train()
    texts, measured = (
        [encode_text(bench.tokenizer, one, classes, reader=False, max_tokens=MAX_TOKENS) for one in each]
        for each in (examples, heldout)
    )
    pad, seed = bench.tokenizer.reserved.pad, derive_seed(bench.seed, "lab", "adapters", "order")
    optimizer = Optimizer(learner, OptimizerRecipe(beta2=0.999, weight_decay=0.01))
    for step in range(num_steps):
        chosen = endless_order(len(texts), start=step * BATCH_ROWS, count=BATCH_ROWS, seed=seed)
        batch = [texts[index] for index in chosen]
        parts = classification_parts(
            learner, batch, bench.compute, pad_id=pad, micro_batch_rows=BATCH_ROWS, noise_seed=0
        )
        add_gradient(learner, differentiate({"loss": parts})["loss"].gradient)
        optimizer.step(linear_rate(step, peak=RATES[way], num_steps=num_steps, warmup_steps=num_steps // 10))
    learned = sum(parameter.numel() for parameter in learner.parameters() if parameter.requires_grad)
    found = measure_classes(learner.classifier, measured, bench.compute, pad_id=pad)
    return Tuned(found["accuracy"], learned, total)


def measure(bench: Bench) -> dict[str, float]:
    """Tune every way and return accuracies, and beside them the shares of parameters that learned."""
    bench, artifact = pretrained_on_text(bench)
    base: Any = bench.open(artifact)
    names = bench.village.strangers
    train = labeled_choices(names, NUM_LABELS, bench.seed, heldout=False)
    heldout = labeled_choices(names, bench.size.num_texts, bench.seed, heldout=True)
    moved = given_round(train, bench.seed)
    steps = min(NUM_STEPS, bench.size.num_steps)
    found = {
        "full fine-tuning": tuned(bench, base, "full", train, heldout, num_steps=steps),
        "LoRA": tuned(bench, base, "lora", train, heldout, num_steps=steps),
        "P-tuning v2": tuned(bench, base, "prefix", train, heldout, num_steps=steps),
        "P-tuning": tuned(bench, base, "p_tuning", train, heldout, num_steps=steps),
        "head alone": tuned(bench, base, "head", train, heldout, num_steps=steps),
        "LoRA, labels given round": tuned(bench, base, "lora", moved, heldout, num_steps=steps),
        "P-tuning v2, labels given round": tuned(bench, base, "prefix", moved, heldout, num_steps=steps),
        "P-tuning, labels given round": tuned(bench, base, "p_tuning", moved, heldout, num_steps=steps),
        "P-tuning v2, nothing trained": tuned(bench, base, "prefix", train, heldout, num_steps=0),
    }
    adapters = ("LoRA", "P-tuning v2", "P-tuning")
    shares = {f"{name}: share learned": found[name].learned / found[name].total for name in adapters}
    return {**{name: each.accuracy for name, each in found.items()}, **shares}


ADAPTERS_PHENOMENON = Phenomenon(
    name="adapters",
    claim="LoRA and P-tuning reach 90 % of full fine-tuning with under 2 % of the parameters (arXiv:2106.09685).",
    measure=measure,
    effect=("full fine-tuning", "LoRA", "P-tuning v2", "P-tuning"),
    control=(
        "head alone",
        "LoRA, labels given round",
        "P-tuning v2, labels given round",
        "P-tuning, labels given round",
        "P-tuning v2, nothing trained",
    ),
    size=SIZE,
)
