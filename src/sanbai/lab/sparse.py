"""What the phenomena of experts share: shapes, training, held-out text, and how much sooner one curve gets as far.

The shape is Qwen3's, the stock decoder that can have one expert a token in every second layer. A model with N experts
computes as much a token as the dense one, its router aside. All matrices learn by AdamW, since Muon moves dense ones
and leaves experts, which would be a second difference; the rate falls as the root of the steps as in T5 and Switch,
so that a loss on the way is no worse than that of a run which ends there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from time import perf_counter
from typing import Any

from sanbai.data.shards import ShardReader
from sanbai.evaluation.language import HeldOutDocument, document_bits, heldout_documents
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.seeds import derive_seed, torch_generator
from sanbai.lab.bench import ROW_LENGTH, Bench, Size
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel
from sanbai.training.gradients import add_gradient, differentiate
from sanbai.training.objective import loss_parts, open_batches
from sanbai.training.optimizer import Optimizer, OptimizerRecipe

SPARSE = Size(document_bytes=3_000_000, vocab_size=1200, width=96, num_layers=4, num_steps=400, num_texts=48)
"""What is reported: a dense model of half a million parameters, 0.8 million tokens."""
RATE = 3e-3
OPTIMIZER = OptimizerRecipe(weight_decay=0.05)
NUM_EVALUATIONS = 16
COIN_BITS = 8.0
"""Bits a byte of who knows nothing; a model that diverged counts as much."""
NUM_TIMED_STEPS = 9

Curve = Sequence[tuple[int, float]]
"""(step, held-out bits per byte), in the order of steps."""


def sparse_shape(size: Size, num_experts: int, **experts: Any) -> ModelConfig:
    """Return the shape with so many experts in every second layer, none for the dense model.

    Args:
        size: width and layers.
        num_experts: 0 is dense; 1 is dense as well, with an expert's initialisation.
        **experts: other fields of `[model.experts]`.
    """
    fields: dict[str, Any] = {
        "num_layers": size.num_layers,
        "width": size.width,
        "num_heads": size.width // 32,
        "num_kv_heads": size.width // 32,
        "head_width": 32,
        "query_key_norm": True,
        "feed_forward": "swiglu",
        "feed_forward_width": size.width * 8 // 3 // 32 * 32,
        "norm": "rms",
        "positions": "rotary",
        "max_positions": 2 * ROW_LENGTH,
        "initial_std": 0.06,
    }
    if num_experts:
        fields |= {"sparse_layers": "every_second", "experts": {"num_experts": num_experts, **experts}}
    return ModelConfig.model_validate(fields)


def training(size: Size) -> dict[str, Any]:
    """Return the fields of `[pretrain]` and `[distill]` that all models of one comparison share."""
    return {
        "num_steps": size.num_steps,
        "row_length": ROW_LENGTH,
        "batch_rows": size.batch_rows,
        "micro_batch_rows": 8,
        "learning_rate": RATE,
        "schedule": "inverse_root",
        "warmup_steps": size.num_steps // 10 + 1,
        "evaluate_steps": max(1, size.num_steps // NUM_EVALUATIONS),
        "checkpoint_steps": 100,
        "optimizer": OPTIMIZER,
    }


def heldout_bits(bench: Bench) -> Callable[[LanguageModel], dict[str, float]]:
    """Return a function that measures `bits_per_byte` on the bench's first held-out documents."""
    documents = heldout_documents(bench.shards, bench.size.num_texts)

    def evaluate(model: LanguageModel) -> dict[str, float]:
        return {"bits_per_byte": bits_by_group(bench, model, {"all": documents})["all"]}

    return evaluate


def bits_by_group(
    bench: Bench, model: LanguageModel, groups: Mapping[str, Sequence[HeldOutDocument]]
) -> dict[str, float]:
    """Return the bits per byte of each group of documents, all read together; `COIN_BITS` where it is no number."""
    every = [document for documents in groups.values() for document in documents]
    bits = iter(document_bits(model, every, begin_id=bench.tokenizer.reserved.end_of_text, context=ROW_LENGTH).tolist())
    found = {}
    for group, documents in groups.items():
        ratio = math.fsum([next(bits) for _ in documents]) / sum(document.num_bytes for document in documents)
        found[group] = ratio if math.isfinite(ratio) else COIN_BITS
    return found


def trained(bench: Bench, config: ModelConfig, **changes: Any) -> Artifact:
    """Pretrain a model of the comparison, its held-out bits per byte on the way; `changes` are of `[pretrain]`."""
    return bench.pretrained(config, evaluate=heldout_bits(bench), **{**training(bench.size), **changes})


def steps_to(curve: Curve, level: float) -> float | None:
    """Return the step at which a curve first falls to a level, on straight lines between its points; None if never."""
    before: tuple[int, float] | None = None
    for step, value in curve:
        if value <= level:
            if before is None:
                return float(step)
            return before[0] + (step - before[0]) * (before[1] - level) / (before[1] - value)
        before = (step, value)
    return None


def speed_up(curve: Curve, baseline: Curve) -> float:
    """Return how many times fewer steps a curve needs to the baseline's last value.

    A curve that never gets there gets a number below 1: the share of the steps after which the baseline was where the
    curve ends.

    Args:
        curve: of the model that is tried; as long as the baseline.
        baseline: of the model that it is compared with.
    """
    reached = steps_to(curve, baseline[-1][1])
    if reached is not None:
        return baseline[-1][0] / reached
    overtaken = steps_to(baseline, curve[-1][1])
    assert overtaken is not None
    return overtaken / curve[-1][0]


def step_seconds(bench: Bench, configs: Mapping[str, ModelConfig]) -> dict[str, float]:
    """Return the wall-clock of a training step of each shape, the median of some, taken in turn on the same rows.

    Taken in turn, since whole runs hours apart on a shared machine compare the machine's other work.
    """
    recipe = training(bench.size)
    batch = next(
        open_batches(
            "causal",
            ShardReader(bench.shards, "train"),
            bench.tokenizer,
            row_length=recipe["row_length"],
            batch_rows=recipe["batch_rows"],
            seed=derive_seed(bench.seed, "lab", "timing"),
        )
    )
    models = {}
    for name, config in configs.items():
        sized = config.with_vocabulary(bench.tokenizer.vocab_size)
        model = LanguageModel(sized, torch_generator(bench.seed, "lab", "timing")).to(bench.compute.device)
        models[name] = (model, Optimizer(model, OPTIMIZER))
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for number in range(NUM_TIMED_STEPS + 1):
        for name, (model, optimizer) in models.items():
            start = perf_counter()
            parts = loss_parts(
                model, batch, bench.compute, micro_batch_rows=recipe["micro_batch_rows"], noise_seed=number
            )
            add_gradient(model, differentiate({"loss": parts})["loss"].gradient)
            optimizer.step(recipe["learning_rate"])
            if number:  # the first fills the memory's pools
                seconds[name].append(perf_counter() - start)
    return {name: median(times) for name, times in seconds.items()}
