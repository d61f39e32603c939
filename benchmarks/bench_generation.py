"""Generation beside transformers in one run: tokens a second of process time, medians of interleaved repeats.

Random weights of one shape, exported and read by transformers, so both do the same work; one thread. `batched` is
`generation.engine.generate`, `continuous` the engine of `generation.continuous`.

python benchmarks/bench_generation.py --repeats 5
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from sanbai.foundation.device import tune_allocator
from sanbai.foundation.seeds import torch_generator
from sanbai.generation.answering import generate_continuously
from sanbai.generation.continuous import ContinuousEngine, EngineSettings, decoding_copy
from sanbai.generation.engine import Precision, generate
from sanbai.generation.request import Request
from sanbai.generation.sampling import Sampling
from sanbai.generation.scoring import score
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import save_model

GPT2 = {
    "feed_forward": "gelu_tanh", "norm": "layer", "norm_epsilon": 1e-5, "positions": "learned", "bias": True,
}  # fmt: skip
SHAPES = {
    "12m": ModelConfig(
        vocab_size=4096, num_layers=6, width=384, num_heads=6, num_kv_heads=6, head_width=64, feed_forward_width=1536,
        max_positions=512, **GPT2,
    ),
    "124m": ModelConfig(
        vocab_size=50257, num_layers=12, width=768, num_heads=12, num_kv_heads=12, head_width=64,
        feed_forward_width=3072, max_positions=1024, **GPT2,
    ),
}  # fmt: skip
NEW_TOKENS, PROMPT = 64, 32


def make_prompts(vocab_size: int, count: int, length: int, seed: int = 1) -> list[list[int]]:
    return torch.randint(0, vocab_size, (count, length), generator=torch_generator(seed)).tolist()


class Peer:
    """transformers, decoding as it comes."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        self.model.eval()

    def answer(self, prompts: Sequence[Sequence[int]], new_tokens: int, *, copies: int = 1, draw: bool = False) -> None:
        """Answer prompts as one batch, padded on the left; each with `copies` drawn answers, or a greedy one."""
        longest = max(map(len, prompts))
        tokens = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        drawing: dict[str, Any] = {"do_sample": True, "top_k": 0, "num_return_sequences": copies} if draw else {}
        with torch.inference_mode():
            self.model.generate(
                tokens, attention_mask=mask, max_new_tokens=new_tokens, min_new_tokens=new_tokens, pad_token_id=0,
                **({"do_sample": False} | drawing),
            )  # fmt: skip


def interleaved(runs: Mapping[str, Callable[[], object]], *, repeats: int) -> dict[str, list[float]]:
    """Run everything in turn, `repeats` times after one warming run; return seconds of process time of each.

    A run that keeps its own clock returns its seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.process_time()
            own = run()
            if repeat:
                seconds[name].append(own if isinstance(own, float) else time.process_time() - start)
    return seconds


def decode(model: LanguageModel, peer: Peer, rows: int, precision: Precision) -> dict[str, Callable[[], Any]]:
    """`rows` prompts, greedy."""
    prompts = make_prompts(model.config.vocab_size, rows, PROMPT)
    sampling = Sampling(temperature=0.0, max_new_tokens=NEW_TOKENS)
    settings = EngineSettings(num_blocks=rows * 8, max_rows=rows, step_tokens=2048)
    engine = ContinuousEngine(decoding_copy(model, precision), settings)

    def continuous() -> None:
        engine.pool.forget()  # no prefix is known from the run before
        for prompt in prompts:
            engine.submit(Request(prompt=prompt, sampling=sampling, seeds=[1]))
        while engine.busy:
            engine.step()

    return {
        "transformers": partial(peer.answer, prompts, NEW_TOKENS),
        "batched": partial(generate, model, prompts, sampling, seeds=range(rows), stop_ids=(), precision=precision),
        "continuous": continuous,
    }


def shared_prefix(
    model: LanguageModel, peer: Peer, prompts: int, copies: int, precision: Precision
) -> dict[str, Callable[[], Any]]:
    """`copies` answers of 32 tokens to each of some prompts of 200, drawn."""
    texts = make_prompts(model.config.vocab_size, prompts, 200)
    sampling = Sampling(max_new_tokens=32)
    rows = [text for text in texts for _ in range(copies)]
    ours: dict[str, Any] = {"seeds": range(len(rows)), "stop_ids": (), "batch_size": len(rows), "precision": precision}
    return {
        "transformers": partial(peer.answer, texts, 32, copies=copies, draw=True),
        "batched": partial(generate, model, rows, sampling, **ours),
        "continuous": partial(generate_continuously, model, rows, sampling, **ours),
    }


class Clock:
    """Process time, which may be moved on to when the next request comes."""

    def __init__(self) -> None:
        self.offset = -time.process_time()

    def now(self) -> float:
        """Return seconds since the clock was made."""
        return time.process_time() + self.offset

    def wait_until(self, moment: float) -> None:
        """Move on to a moment, unless it is past."""
        self.offset += max(0.0, moment - self.now())


def mixed(
    model: LanguageModel, peer: Peer, count: int, precision: Precision
) -> tuple[int, dict[str, Callable[[], float]]]:
    """Requests of 1 to 256 new tokens come at random while the machine works; return their tokens, and the runs."""
    dice = random.Random(1)
    prompts = [make_prompts(model.config.vocab_size, 1, dice.randint(4, 64), seed)[0] for seed in range(count)]
    lengths = [dice.randint(1, 256) for _ in prompts]
    moments, moment = [], 0.0
    for _ in prompts:
        moment += dice.expovariate(count / 2.0)  # all within about two seconds
        moments.append(moment)
    settings = EngineSettings(num_blocks=count * 21, max_rows=count, step_tokens=256)

    decoder = decoding_copy(model, precision)

    def padded() -> float:
        """Take what waits as one batch, and read nothing else before its longest is done."""
        clock, place = Clock(), 0
        while place < count:
            clock.wait_until(moments[place])
            batch = [each for each in range(place, count) if moments[each] <= clock.now()]
            place += len(batch)
            peer.answer([prompts[each] for each in batch], max(lengths[each] for each in batch))
        return clock.now()

    def continuous() -> float:
        engine = ContinuousEngine(decoder, settings)
        clock, place = Clock(), 0
        while place < count or engine.busy:
            if not engine.busy:
                clock.wait_until(moments[place])
            while place < count and moments[place] <= clock.now():
                sampling = Sampling(temperature=0.0, max_new_tokens=lengths[place])
                engine.submit(Request(prompt=prompts[place], sampling=sampling, seeds=[1]))
                place += 1
            engine.step()
        return clock.now()

    return sum(lengths), {"transformers": padded, "continuous": continuous}


def mismatch(model: LanguageModel) -> float:
    """Mean |difference| in nats of log-probabilities, bfloat16 decoding against float32 scoring of the same tokens."""
    prompts = make_prompts(model.config.vocab_size, 16, PROMPT)
    sampling = Sampling(max_new_tokens=32)
    rough = generate_continuously(model, prompts, sampling, seeds=range(16), stop_ids=(), precision="bfloat16")
    exact = score(model, prompts, [completion.tokens for completion in rough])
    pairs = [pair for row, other in zip(rough, exact, strict=True) for pair in zip(row.logprobs, other, strict=True)]
    return statistics.fmean(abs(first - second) for first, second in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="12m")
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 16, 64])
    parser.add_argument(
        "--only", choices=["decode", "prefix", "mixed"], nargs="*", default=["decode", "prefix", "mixed"]
    )
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="end with one JSON record")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tune_allocator()
    transformers.logging.set_verbosity_error()
    model = LanguageModel(SHAPES[arguments.shape], torch_generator(0)).eval()
    dtype = getattr(torch, arguments.precision)
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, Path(folder))
        peer = Peer(Path(folder), dtype)
    precision: Precision = "bfloat16" if dtype == torch.bfloat16 else "stored"

    work: list[tuple[str, int, Mapping[str, Callable[[], Any]]]] = []
    if "decode" in arguments.only:
        work += [
            (f"{rows} rows of {PROMPT} + {NEW_TOKENS}", rows * NEW_TOKENS, decode(model, peer, rows, precision))
            for rows in arguments.rows
        ]
    if "prefix" in arguments.only:
        work.append(("16 prompts of 200, 9 answers of 32", 16 * 9 * 32, shared_prefix(model, peer, 16, 9, precision)))
    if "mixed" in arguments.only:
        work.append(("64 requests of 1 to 256, at random", *mixed(model, peer, 64, precision)))
    record = []
    for name, tokens, runs in work:
        taken = interleaved(runs, repeats=arguments.repeats)
        theirs = statistics.median(taken["transformers"])
        for engine, seconds in taken.items():
            middle = statistics.median(seconds)
            spread = (max(seconds) - min(seconds)) / middle
            speed = f"{tokens / middle:9,.0f} tokens/s  {theirs / middle:5.2f} x  spread {spread:.0%}"
            print(f"{name:36} {engine:13} {speed}", flush=True)
            record.append({"work": name, "engine": engine, "tokens_per_second": tokens / middle, "spread": spread})
    print(f"bfloat16 against float32 log-probabilities: {mismatch(model):.5f} nats a token")
    if arguments.json:
        print(json.dumps({"shape": arguments.shape, "precision": arguments.precision, "results": record}))


if __name__ == "__main__":
    main()
