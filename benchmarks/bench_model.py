"""Training step and decoding speed of a preset, in tokens a second; medians, beside transformers on request.

python -m benchmarks.bench_model --threads 2
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

from sanbai.foundation.device import tune_allocator
from sanbai.foundation.seeds import torch_generator
from sanbai.generation.answering import Completion, generate
from sanbai.generation.precision import DecodingPrecision
from sanbai.generation.sampling import Sampling
from sanbai.generation.scoring import score
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import load_language_model
from sanbai.model.presets import PRESETS
from sanbai.objectives.language import chunked_next_token_loss


def medians(work: Mapping[str, Callable[[], object]], *, repeats: int, threads: int) -> dict[str, float]:
    """Run everything in turn, `repeats` times after one warming run; return seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for repeat in range(repeats + 1):
        for name, run in work.items():
            start = time.process_time()
            run()
            if repeat:
                seconds[name].append((time.process_time() - start) / threads)
    return {name: statistics.median(values) for name, values in seconds.items()}


def training_step(model: LanguageModel, rows: int, length: int, precision: torch.dtype) -> None:
    tokens_BT = torch.randint(0, model.config.vocab_size, (rows, length + 1), generator=torch_generator(0))
    segments_BT = (torch.arange(length) // 90 + 1).expand(rows, length)
    weight_N = torch.full((rows * length,), 1 / (rows * length))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        hidden_ND = model.trunk(tokens_BT[:, :-1], segments_BT=segments_BT).flatten(0, 1)
        chunked_next_token_loss(hidden_ND, model.head_weight, tokens_BT[:, 1:].flatten(), weight_N).backward()
    model.zero_grad(set_to_none=True)


def decode(model: LanguageModel, rows: int, precision: DecodingPrecision, new_tokens: int) -> list[Completion]:
    prompts = torch.randint(0, model.config.vocab_size, (rows, 80), generator=torch_generator(1)).tolist()
    sampling = Sampling(max_new_tokens=new_tokens)
    return generate(model, prompts, sampling, seeds=range(rows), stop_ids=(), batch_size=rows, precision=precision)


def mismatch(model: LanguageModel) -> float:
    """Mean |difference| of log-probabilities, bfloat16 decoding against float32 scoring of the same tokens."""
    prompts = torch.randint(0, model.config.vocab_size, (32, 80), generator=torch_generator(1)).tolist()
    rough = decode(model, 32, "bfloat16", 32)
    exact = score(model, prompts, [completion.tokens for completion in rough])
    pairs = [pair for row, other in zip(rough, exact, strict=True) for pair in zip(row.logprobs, other, strict=True)]
    return statistics.fmean(abs(first - second) for first, second in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--model", type=Path, help="a model's folder in the place of a preset's random weights")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tune_allocator()
    model = LanguageModel(PRESETS[arguments.preset], torch_generator(0))
    if arguments.model is not None:
        model = load_language_model(arguments.model)

    steps = {
        f"train {name} {arguments.rows} x {arguments.length}": partial(
            training_step, model, arguments.rows, arguments.length, dtype
        )
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
    }
    for name, seconds in medians(steps, repeats=arguments.repeats, threads=arguments.threads).items():
        print(f"{name:32} {arguments.rows * arguments.length / seconds:10,.0f} tokens/s")
    for rows in (1, 16, 64, 128):
        precisions: tuple[DecodingPrecision, ...] = ("stored", "bfloat16")
        runs = {
            f"{name} {tokens}": partial(decode, model, rows, name, tokens) for name in precisions for tokens in (1, 33)
        }
        taken = medians(runs, repeats=arguments.repeats, threads=arguments.threads)
        for name in precisions:
            whole = rows * 33 / taken[f"{name} 33"]
            steps_only = rows * 32 / (taken[f"{name} 33"] - taken[f"{name} 1"])
            label = f"decode {name} {rows} rows of 80 + 33"
            print(f"{label:32} {whole:10,.0f} tokens/s, {steps_only:10,.0f} without the prompts")
    print(f"bfloat16 against float32 log-probabilities: {mismatch(model):.5f} nats a token")


if __name__ == "__main__":
    main()
