"""A Switch layer beside the dense layer it replaces and beside transformers' `SwitchTransformersSparseMLP`.

    python -m benchmarks.bench_experts --threads 1 --repeats 7

Forward and backward of one layer, a fresh batch each time, nothing dropped on either side. Each layer lives in a
process of its own, as in training, and the processes take turns, so that a busy machine slows all alike. Ten turns
warm them: a CPU's kernels are compiled for the sizes that they meet, as in the first steps of a training. Printed are
medians of wall and processor time with the fastest and slowest turn; JSON goes to `benchmarks/results`. `products`
are the dense layer's six matrix products alone: a layer that multiplies as much cannot take less.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SwitchTransformersConfig
from transformers.models.switch_transformers.modeling_switch_transformers import (
    SwitchTransformersDenseActDense,
    SwitchTransformersSparseMLP,
)

from sanbai.foundation.device import describe_machine, tune_allocator
from sanbai.foundation.seeds import torch_generator
from sanbai.model.experts import Experts, ExpertsConfig

WIDTH, INNER_WIDTH, ROWS, LENGTH = 768, 3072, 16, 256
WARM = 10
LAYERS = ("dense", "sanbai", "transformers", "products")


def make_layer(name: str, num_experts: int) -> nn.Module:
    config = SwitchTransformersConfig(
        d_model=WIDTH,
        d_ff=INNER_WIDTH,
        num_experts=num_experts,
        expert_capacity=LENGTH,  # of each row, so that nothing is dropped
        dropout_rate=0.0,
        router_jitter_noise=0.0,
    )
    if name == "dense":
        return SwitchTransformersDenseActDense(config)
    if name == "transformers":
        return SwitchTransformersSparseMLP(config)
    quiet = ExpertsConfig(num_experts=num_experts, dropless=True, jitter=0.0)
    return Experts(
        quiet, width=WIDTH, inner_width=INNER_WIDTH, activation=F.relu, gated=False, generator=torch_generator(0)
    )


def layer_step(layer: nn.Module, x_BTD: Tensor, gradient_BTD: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=x_BTD.dtype == torch.float32):
        out = layer(x_BTD)
    outs = [out[0], out[1].loss] if isinstance(out, tuple) else [out]
    torch.autograd.backward(outs, [gradient_BTD.to(outs[0].dtype), None][: len(outs)])
    layer.zero_grad(set_to_none=True)


def make_products() -> Callable[[Tensor, Tensor], None]:
    shapes = ((ROWS * LENGTH, WIDTH), (WIDTH, INNER_WIDTH), (INNER_WIDTH, WIDTH), (ROWS * LENGTH, INNER_WIDTH))
    x, up, down, inner = (torch.randn(shape, generator=torch_generator(2)).to(torch.bfloat16) for shape in shapes)
    pairs = ((x, up), (inner, down), (x, down.t()), (inner.t(), x), (inner, up.t()), (x.t(), inner))

    def run(_: Tensor, __: Tensor) -> None:
        for left, right in pairs:
            torch.mm(left, right)

    return run


def work(turns: Connection, name: str, num_experts: int, dtype: torch.dtype, threads: int) -> None:
    """Answer each seed with the wall and processor seconds of one step on that seed's batch, until there is no more."""
    torch.set_num_threads(threads)
    tune_allocator()
    torch.manual_seed(0)
    if name == "products":
        step = make_products()
    else:
        layer = make_layer(name, num_experts).to(dtype)

        def step(x_BTD: Tensor, gradient_BTD: Tensor) -> None:
            layer_step(layer, x_BTD, gradient_BTD)

    while (seed := turns.recv()) is not None:
        x_BTD, gradient_BTD = torch.randn(2, ROWS, LENGTH, WIDTH, generator=torch_generator(seed)).to(dtype)
        wall, processor = time.perf_counter(), time.process_time()
        step(x_BTD.requires_grad_(), gradient_BTD)
        turns.send((time.perf_counter() - wall, time.process_time() - processor))


def measure(
    num_experts: int, dtype: torch.dtype, *, threads: int, repeats: int
) -> dict[str, list[tuple[float, float]]]:
    """Return wall and processor seconds of each layer's turns, after those that warm it."""
    context = multiprocessing.get_context("spawn")
    ends = {}
    for name in LAYERS:
        ends[name], theirs = context.Pipe()
        context.Process(target=work, args=(theirs, name, num_experts, dtype, threads), daemon=True).start()
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in LAYERS}
    for repeat in range(WARM + repeats):
        for name, end in ends.items():
            end.send(repeat)
            seconds = end.recv()
            if repeat >= WARM:
                taken[name].append(seconds)
    for end in ends.values():
        end.send(None)
    for process in multiprocessing.active_children():
        process.join()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "experts.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    records = []
    for weights, dtype, counts in (
        ("bfloat16", torch.bfloat16, (8, 64)),
        ("float32, products in bfloat16", torch.float32, (8,)),
    ):
        for num_experts in counts:
            taken = measure(num_experts, dtype, threads=arguments.threads, repeats=arguments.repeats)
            walls = {name: [wall for wall, _ in seconds] for name, seconds in taken.items()}
            wall = {name: statistics.median(values) for name, values in walls.items()}
            processor = {name: statistics.median(one for _, one in seconds) for name, seconds in taken.items()}
            print(f"{num_experts} experts, weights {weights}, {arguments.threads} thread(s), medians of wall time")
            for name in LAYERS:
                spread = f"{1e3 * min(walls[name]):.0f} to {1e3 * max(walls[name]):.0f}"
                ratio = f"{wall[name] / wall['dense']:.2f} x dense, {processor[name] / processor['dense']:.2f} x of its"
                print(f"  {name:14}{1e3 * wall[name]:6.0f} ms ({spread}), {ratio} processor time", flush=True)
            faster = wall["transformers"] / wall["sanbai"], processor["transformers"] / processor["sanbai"]
            print(f"  sanbai is {faster[0]:.2f} times as fast as transformers, {faster[1]:.2f} by processor time")
            records.append({"num_experts": num_experts, "weights": weights, "seconds": taken})
    result = {
        "machine": describe_machine(),
        "shape": {"width": WIDTH, "inner_width": INNER_WIDTH, "rows": ROWS, "length": LENGTH},
        "seconds": "wall and processor, a turn each",
        "layers": records,
    }
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(result) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
