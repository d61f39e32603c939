"""Speculative decoding where it helps and where it cannot: tokens a second beside the same engine without guesses.

Weights are made so that the answers' predictability is known while every step costs what it costs with trained ones.
Seconds are of process time.

- `repeats`: each token has one successor, round a circle of 50; what came before comes again.
- `misleads`: eight tokens are equally likely at any place, so runs come again and what followed them does not.
- `random`: fresh weights at temperature 1; hardly a run comes again.

The draft model is a tenth of the other's size; in `repeats` it knows the circle, elsewhere it is as good as chance.

python -m benchmarks.bench_speculation --rows 1 8
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable

import torch
from benchmarks.bench_generation import make_prompts
from benchmarks.shapes import SHAPES

from sanbai.foundation.device import tune_allocator
from sanbai.foundation.seeds import torch_generator
from sanbai.generation.engine import ContinuousEngine, EngineSettings
from sanbai.generation.precision import decoding_copy
from sanbai.generation.request import Request
from sanbai.generation.sampling import Sampling
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel

CIRCLE, EQUALS = 50, 8


@torch.no_grad()
def make_model(config: ModelConfig, work: str) -> LanguageModel:
    """Return a model whose steps cost the same whatever it predicts."""
    model = LanguageModel(config.model_copy(update={"tied_embeddings": False}), torch_generator(0)).eval()
    assert model.head is not None
    if work == "repeats":
        for block in model.trunk.blocks:  # what a token is stays what it is up to the head
            for name in ("attention.out", "feed_forward.down"):
                block.get_parameter(f"{name}.weight").zero_()
        model.trunk.get_parameter("position_embedding.weight").zero_()
        vectors = model.trunk.token_embedding.weight
        after = torch.arange(config.vocab_size)
        after[:CIRCLE] = (after[:CIRCLE] + 1) % CIRCLE
        after[CIRCLE:] = after[CIRCLE:] % CIRCLE
        model.head.weight.zero_()
        model.head.weight.index_add_(0, after[:CIRCLE], 1e4 * vectors[:CIRCLE])
    if work == "misleads":
        model.trunk.get_parameter("norm.weight").zero_()
        model.trunk.get_parameter("norm.bias").fill_(1.0)
        model.head.weight.fill_(-1.0)
        model.head.weight[:EQUALS] = 0.0
    return model


class Side:
    """One engine, kept over the repeats as a server keeps it."""

    def __init__(
        self, model: LanguageModel, draft: LanguageModel | None, speculation: str, rows: int, new: int
    ) -> None:
        settings = EngineSettings.model_validate(
            {"num_blocks": rows * (new // 16 + 8), "max_rows": rows, "step_tokens": 2048, "speculation": speculation}
        )
        self.engine = ContinuousEngine(model, settings, draft=draft if speculation == "draft" else None)

    def begin(self, prompts: list[list[int]], new: int, seed: int) -> None:
        """Ask for an answer to each prompt."""
        self.engine.pool.forget()
        self.seconds = 0.0
        for row, prompt in enumerate(prompts):
            self.engine.submit(Request(prompt=prompt, sampling=Sampling(max_new_tokens=new), seeds=[seed + row]))

    def step(self) -> None:
        """Take one step, and count the process time that it takes."""
        start = time.process_time()
        self.engine.step()
        self.seconds += time.process_time() - start


def answer(sides: Iterable[Side], prompts: list[list[int]], new: int, seed: int) -> None:
    """Let all sides answer, a step of each in turn, so that a neighbour's noise meets all alike."""
    sides = list(sides)
    for side in sides:
        side.begin(prompts, new, seed)
    while any(side.engine.busy for side in sides):
        for side in sides:
            if side.engine.busy:
                side.step()
        sides.append(sides.pop(0))  # none is always behind the same other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="12m")
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--new", type=int, default=192)
    parser.add_argument("--works", nargs="*", default=["repeats", "misleads", "random"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="end with one JSON record")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tune_allocator()
    config = SHAPES[arguments.shape]
    small = config.model_copy(
        update={"num_layers": 1, "num_heads": 3, "num_kv_heads": 3, "width": 192, "feed_forward_width": 768}
    )
    record = []
    for work in arguments.works:
        model = decoding_copy(make_model(config, work), "bfloat16")
        draft = decoding_copy(make_model(small, "repeats" if work == "repeats" else "random"), "bfloat16")
        for rows in arguments.rows:
            sides = {name: Side(model, draft, name, rows, arguments.new) for name in ("off", "ngram", "draft")}
            seconds: dict[str, list[float]] = {name: [] for name in sides}
            for repeat in range(arguments.repeats + 1):
                prompts = make_prompts(CIRCLE, rows, 32, seed=1 + repeat)
                answer(sides.values(), prompts, arguments.new, seed=1000 * repeat)
                if repeat:
                    for name, side in sides.items():
                        seconds[name].append(side.seconds)
            for name, side in sides.items():
                speed = rows * arguments.new / statistics.median(seconds[name])
                ratio = sum(seconds["off"]) / sum(seconds[name])
                counts = side.engine.speculator.counts if side.engine.speculator else None
                guessed = f"{counts.right} of {counts.guesses} guesses right" if counts else ""
                print(f"{work:9} {rows:3} rows {name:6} {speed:8,.0f} tokens/s  {ratio:5.2f} x  {guessed}", flush=True)
                record.append({"work": work, "rows": rows, "speculation": name, "speed": speed, "ratio": ratio})
    if arguments.json:
        print(json.dumps({"shape": arguments.shape, "results": record}))


if __name__ == "__main__":
    main()
