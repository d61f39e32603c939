"""Generation beside transformers in one run: tokens a second of process time, medians of interleaved repeats.

Random weights of one shape, exported and read by transformers, so both do the same work; one thread. `continuous` is
the engine of `generation/engine.py`; where all prompts are known beforehand, with the copy that it decodes with.

Cases (`--only`): `decode` (12m, 1, 16 and 64 rows), `large` (124m, one row, beside the time that reading the weights
once takes; int8 and int4 weights beside bfloat16), `prefix` (9 answers to each of 16 prompts), `mixed` (64 requests at
random). Results are merged by case into `benchmarks/results/generation.json`.

With `--device cuda` the same runs on an accelerator, on the wall clock: weights as stored, or bfloat16 unpacked.

python -m benchmarks.bench_generation --repeats 5 --only decode
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
from benchmarks.shapes import SHAPES

from sanbai.foundation.device import describe_machine, tune_allocator
from sanbai.foundation.seeds import torch_generator
from sanbai.generation.answering import generate
from sanbai.generation.engine import ContinuousEngine, EngineSettings
from sanbai.generation.precision import DecodingPrecision, decoding_copy
from sanbai.generation.request import Request
from sanbai.generation.sampling import Sampling
from sanbai.generation.scoring import score
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import save_model

NEW_TOKENS, PROMPT = 64, 32
CASES = ("decode", "large", "prefix", "mixed")
WANTED = {
    "1 rows of 32 + 64": 2.5, "16 rows of 32 + 64": 2.5, "64 rows of 32 + 64": 2.2, "124m, 1 row of 32 + 64": 2.0,
    "16 prompts of 200, 9 answers of 32": 3.0, "64 requests of 1 to 256, at random": 3.0,
}  # fmt: skip
"""Times the peer's speed."""


def make_prompts(vocab_size: int, count: int, length: int, seed: int = 1) -> list[list[int]]:
    return torch.randint(0, vocab_size, (count, length), generator=torch_generator(seed)).tolist()


class Peer:
    """transformers, decoding as it comes."""

    def __init__(self, model: LanguageModel, dtype: torch.dtype) -> None:
        with tempfile.TemporaryDirectory() as folder:
            save_model(model, Path(folder))
            self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        self.model.eval().to(model.head_weight.device)

    def answer(self, prompts: Sequence[Sequence[int]], new_tokens: int, *, copies: int = 1, draw: bool = False) -> None:
        """Answer prompts as one batch, padded on the left; each with `copies` drawn answers, or a greedy one."""
        longest = max(map(len, prompts))
        device = self.model.device
        tokens = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
        drawing: dict[str, Any] = {"do_sample": True, "top_k": 0, "num_return_sequences": copies} if draw else {}
        with torch.inference_mode():
            self.model.generate(
                tokens, attention_mask=mask, max_new_tokens=new_tokens, min_new_tokens=new_tokens, pad_token_id=0,
                **({"do_sample": False} | drawing),
            )  # fmt: skip


def now() -> float:
    """Return seconds: of this process's work, or of the wall where an accelerator works too."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def interleaved(runs: Mapping[str, Callable[[], object]], *, repeats: int) -> dict[str, list[float]]:
    """Run everything in turn, `repeats` times after one warming run; return seconds of each.

    A run that keeps its own clock returns its seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = now()
            own = run()
            if repeat:
                seconds[name].append(own if isinstance(own, float) else now() - start)
    return seconds


def writing(model: LanguageModel, rows: int, precision: DecodingPrecision) -> Callable[[], None]:
    """Return what lets a continuous engine answer `rows` prompts, greedy."""
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

    return continuous


def decode(model: LanguageModel, peer: Peer, rows: int, precision: DecodingPrecision) -> dict[str, Callable[[], Any]]:
    """`rows` prompts, greedy."""
    return {
        "transformers": partial(peer.answer, make_prompts(model.config.vocab_size, rows, PROMPT), NEW_TOKENS),
        "continuous": writing(model, rows, precision),
    }


def large(model: LanguageModel, peer: Peer) -> dict[str, Callable[[], Any]]:
    """One prompt in sixteen, eight and four bits a weight; and the weights' bytes read once a token, then copied."""
    matrices = {module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)} | {
        model.head_weight
    }
    num_numbers = sum(weight.numel() for weight in matrices) // 2  # of float32, as many bytes as bfloat16 weights
    weights, other = torch.ones(num_numbers), torch.ones(num_numbers)

    def each_token(work: Callable[[], object]) -> None:
        for _ in range(NEW_TOKENS):
            work()

    return {
        "transformers": partial(peer.answer, make_prompts(model.config.vocab_size, 1, PROMPT), NEW_TOKENS),
        "continuous": writing(model, 1, "bfloat16"),
        "int8": writing(model, 1, "int8"),
        "int4": writing(model, 1, "int4"),
        "reading": partial(each_token, weights.sum),
        "copying": partial(each_token, partial(other.copy_, weights)),
    }


def shared_prefix(
    model: LanguageModel, peer: Peer, prompts: int, copies: int, precision: DecodingPrecision
) -> dict[str, Callable[[], Any]]:
    """`copies` answers of 32 tokens to each of some prompts of 200, drawn."""
    texts = make_prompts(model.config.vocab_size, prompts, 200)
    sampling = Sampling(max_new_tokens=32)
    rows = [text for text in texts for _ in range(copies)]
    ours: dict[str, Any] = {"seeds": range(len(rows)), "stop_ids": (), "batch_size": len(rows), "precision": precision}
    return {
        "transformers": partial(peer.answer, texts, 32, copies=copies, draw=True),
        "continuous": partial(generate, model, rows, sampling, **ours),
    }


class Clock:
    """Process time, which may be moved on to when the next request comes."""

    def __init__(self) -> None:
        self.offset = -now()

    def now(self) -> float:
        """Return seconds since the clock was made."""
        return now() + self.offset

    def wait_until(self, moment: float) -> None:
        """Move on to a moment, unless it is past."""
        self.offset += max(0.0, moment - self.now())


def mixed(
    model: LanguageModel, peer: Peer, count: int, precision: DecodingPrecision
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
    rough = generate(model, prompts, sampling, seeds=range(16), stop_ids=(), precision="bfloat16")
    exact = score(model, prompts, [completion.tokens for completion in rough])
    pairs = [pair for row, other in zip(rough, exact, strict=True) for pair in zip(row.logprobs, other, strict=True)]
    return statistics.fmean(abs(first - second) for first, second in pairs)


def prepare_case(
    case: str, device: str, precision: DecodingPrecision, rows: Sequence[int]
) -> list[tuple[str, int, Mapping[str, Callable[[], Any]]]]:
    """Return what a case measures: a name, how many tokens, and who makes them."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    shape = "124m" if case == "large" else "12m"
    model = LanguageModel(SHAPES[shape], torch_generator(0)).eval().to(device)
    peer = Peer(model, dtype)
    if case == "decode":
        print(f"bfloat16 against float32 log-probabilities: {mismatch(model):.5f} nats a token")
        return [
            (f"{each} rows of {PROMPT} + {NEW_TOKENS}", each * NEW_TOKENS, decode(model, peer, each, precision))
            for each in rows
        ]
    if case == "large":
        runs = large(model, peer) if device == "cpu" else decode(model, peer, 1, precision)
        return [(f"124m, 1 row of {PROMPT} + {NEW_TOKENS}", NEW_TOKENS, runs)]
    if case == "prefix":
        return [("16 prompts of 200, 9 answers of 32", 16 * 9 * 32, shared_prefix(model, peer, 16, 9, precision))]
    return [("64 requests of 1 to 256, at random", *mixed(model, peer, 64, precision))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=CASES, nargs="*", default=CASES)
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 16, 64], help="of the case `decode`")
    parser.add_argument("--precision", choices=["stored", "bfloat16"], default="bfloat16")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "generation.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tune_allocator()
    transformers.logging.set_verbosity_error()
    for case in arguments.only:
        for name, tokens, runs in prepare_case(case, arguments.device, arguments.precision, arguments.rows):
            taken = interleaved(runs, repeats=arguments.repeats)
            show(name, tokens, taken)
            keep(arguments.out, f"{arguments.device} {arguments.precision} {name}", tokens, taken)


def show(name: str, tokens: int, taken: Mapping[str, list[float]]) -> None:
    """Print medians, how many times the peer's speed they are, and how far the runs lie apart."""
    theirs = statistics.median(taken["transformers"])
    for engine, seconds in taken.items():
        middle = statistics.median(seconds)
        spread = (max(seconds) - min(seconds)) / middle
        wanted = f"  wanted {WANTED[name]:.1f} x" if engine == "continuous" and name in WANTED else ""
        speed = f"{tokens / middle:9,.0f} tokens/s  {theirs / middle:5.2f} x  spread {spread:.0%}"
        print(f"{name:36} {engine:13} {speed}{wanted}", flush=True)
    ours = statistics.median(taken["continuous"])
    if "reading" in taken:
        share = statistics.median(taken["reading"]) / ours
        print(f"{name:36} of the speed at which the weights can be read: {share:.0%}, wanted 75%")
    for bits in ("int8", "int4"):
        if bits in taken:
            print(f"{name:36} {bits} beside bfloat16: {ours / statistics.median(taken[bits]):.2f} x")


def keep(path: Path, name: str, tokens: int, taken: Mapping[str, list[float]]) -> None:
    """Put a case's seconds into the file of results, in the place of what it held of this case."""
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"cases": {}}
    stored["machine"] = describe_machine() | {"num_threads": 1}
    stored["cases"][name] = {"tokens": tokens, "seconds": taken}
    path.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
