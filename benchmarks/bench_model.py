"""Training step and decoding speed of a preset, in tokens a second; medians, beside transformers on request.

python benchmarks/bench_model.py --threads 2
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from sanbai.foundation.device import tune_allocator
from sanbai.model.heads import LanguageModel
from sanbai.model.presets import PRESETS


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def training_step(model: LanguageModel, rows: int, length: int, *, packed: bool, bfloat16: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens_BT = torch.randint(0, model.config.vocab_size, (rows, length + 1), generator=generator)
    segments_BT = (torch.arange(length) // 90 + 1).expand(rows, length) if packed else None
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        logits_BTV = model(tokens_BT[:, :-1], segments_BT=segments_BT)
    loss = F.cross_entropy(logits_BTV.flatten(0, 1).float(), tokens_BT[:, 1:].flatten())
    loss.backward()
    model.zero_grad(set_to_none=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tune_allocator()
    model = LanguageModel(PRESETS[arguments.preset], torch.Generator().manual_seed(0))
    for bfloat16 in (False, True):
        for packed in (False, True):
            seconds = median_seconds(
                lambda bfloat16=bfloat16, packed=packed: training_step(
                    model, arguments.rows, arguments.length, packed=packed, bfloat16=bfloat16
                ),
                arguments.repeats,
            )
            name = f"{'bfloat16' if bfloat16 else 'float32'}{' packed' if packed else ''}"
            print(f"train {name:18} {arguments.rows * arguments.length / seconds:10,.0f} tokens/s")


if __name__ == "__main__":
    main()
