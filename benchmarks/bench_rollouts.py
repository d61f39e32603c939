"""PPO's rollouts and the labelers' drafts: `generate` beside the continuous engine, on as many threads as practice has.

Both get the same prompts and seeds and must return the same answers up to rounding; both split the work by the inputs
alone, so that a run that is killed and resumed answers as before. Wall time, medians of interleaved repeats.

python -m benchmarks.bench_rollouts --threads 2
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from benchmarks.shapes import SHAPES

from sanbai.foundation.device import tune_allocator
from sanbai.foundation.parallel import map_parts, use_threads
from sanbai.foundation.seeds import torch_generator
from sanbai.generation.answering import Completion, generate
from sanbai.generation.precision import decoding_copy
from sanbai.generation.sampling import Sampling
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel

SMALL = ModelConfig(
    vocab_size=1024, num_layers=3, width=160, num_heads=5, num_kv_heads=5, head_width=32, feed_forward_width=384,
    max_positions=384,
)  # fmt: skip
"""The quickstart's."""


def make_prompts(count: int, copies: int, vocab_size: int) -> list[list[int]]:
    """Return prompts of 10 to 90 tokens, each so many times."""
    dice = random.Random(1)
    prompts = [[dice.randrange(vocab_size) for _ in range(dice.randint(10, 90))] for _ in range(count)]
    return [prompt for prompt in prompts for _ in range(copies)]


def continuously(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    threads: int,
    rows: int,
    stop_ids: range,
    sampling: Sampling,
) -> list[Completion]:
    """Answer with an engine a thread, each with every so-manieth of the prompts, equal ones together."""
    decoder = decoding_copy(model, "bfloat16")
    distinct = sorted(set(map(tuple, prompts)), key=lambda prompt: (-len(prompt), prompt))
    part_of = {prompt: place % threads for place, prompt in enumerate(distinct)}
    parts = [[row for row, prompt in enumerate(prompts) if part_of[tuple(prompt)] == part] for part in range(threads)]
    answers: dict[int, Completion] = {}

    def answer(part: Sequence[int]) -> None:
        found = generate(
            decoder, [prompts[row] for row in part], sampling, seeds=part, stop_ids=stop_ids, batch_size=rows
        )
        answers.update(zip(part, found, strict=True))

    map_parts(answer, parts)
    return [answers[row] for row in range(len(prompts))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=["quickstart", "12m"])
    parser.add_argument("--json", action="store_true", help="end with one JSON record")
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    tune_allocator()
    record = []
    for shape in arguments.only:
        config = SMALL if shape == "quickstart" else SHAPES[shape]
        model = LanguageModel(config, torch_generator(0)).eval()
        sampling = Sampling(max_new_tokens=56)
        stop_ids = range(
            config.vocab_size // 28
        )  # fresh weights draw nearly evenly: answers of 1 to 56 tokens, 24 on average
        for name, count, copies in (("128 prompts", 128, 1), ("32 prompts, 9 answers each", 32, 9)):
            prompts = make_prompts(count, copies, config.vocab_size)
            shared = {"stop_ids": stop_ids, "sampling": sampling}
            runs: dict[str, Callable[[], list[Completion]]] = {
                "generate": partial(
                    generate, model, prompts, seeds=range(len(prompts)), batch_size=64, precision="bfloat16", **shared
                ),
                **{
                    f"continuous {rows}": partial(
                        continuously, model, prompts, threads=arguments.threads, rows=rows, **shared
                    )
                    for rows in (32, 64)
                },
            }
            seconds: dict[str, list[float]] = {run: [] for run in runs}
            tokens = 0
            for repeat in range(arguments.repeats + 1):
                for run, call in runs.items():
                    start = time.perf_counter()
                    found = call()
                    if repeat:
                        seconds[run].append(time.perf_counter() - start)
                    tokens = sum(len(completion.tokens) for completion in found)
            for run, taken in seconds.items():
                middle = statistics.median(taken)
                ratio = statistics.median(seconds["generate"]) / middle
                spread = (max(taken) - min(taken)) / middle
                speed = f"{tokens / middle:8,.0f} tokens/s {ratio:5.2f} x  spread {spread:.0%}"
                print(f"{shape:10} {name:27} {run:14} {speed}")
                record.append({"shape": shape, "work": name, "run": run, "speed": tokens / middle, "ratio": ratio})
    if arguments.json:
        print(json.dumps({"threads": arguments.threads, "results": record}))


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
