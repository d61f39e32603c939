"""One step of a reward model three ways: a prompt as one element, an answer a row, a pair at a time.

    python -m benchmarks.bench_reward --threads 1

64 prompts of 200 tokens with K = 9 answers of 40, forward and backward. `tree` is how `training/reward.py` reads them:
the prompt once and every answer once (`training/trees.py`); `separate` reads the prompt again with each answer;
`pairwise` reads both answers of each of the C(9, 2) = 36 pairs, as trainers of (chosen, rejected) do. All three have
the same loss. The batch goes in eights of prompts, which the three take in turn, so that a busy machine slows all
alike, and each computes about as many tokens at a time. Seconds of the whole batch are sums, the spread is that of the
eights' ratios. JSON goes to `benchmarks/results`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from sanbai.foundation.device import describe_machine, tune_allocator
from sanbai.foundation.seeds import numpy_generator, torch_generator
from sanbai.model.heads import ScalarModel
from sanbai.model.presets import PRESETS
from sanbai.objectives.reward import ranking_loss
from sanbai.training.sequences import pack_sequences
from sanbai.training.trees import Tree, pack_trees

NUM_PROMPTS, PROMPT_TOKENS, NUM_ANSWERS, ANSWER_TOKENS = 64, 200, 9, 40
ROW = PROMPT_TOKENS + ANSWER_TOKENS
PAIRS = list(combinations(range(NUM_ANSWERS), 2))
TURN = 8
"""Prompts of a turn."""
PART_TOKENS = 4500
"""Computed at a time by every way: eight trees, two prompts with an answer a row, nine pairs."""
Item = TypeVar("Item")
Read = Callable[[ScalarModel, Sequence[Tree]], Iterator[tuple[Tensor, int]]]
"""Model and prompts -> part by part the loss, summed over prompts, and the tokens that were read."""


def random_trees(vocab_size: int) -> list[Tree]:
    generator = numpy_generator(0, "trees")

    def tokens(number: int) -> tuple[int, ...]:
        return tuple(generator.integers(8, vocab_size, size=number).tolist())

    return [
        Tree(tokens(PROMPT_TOKENS), tuple(tokens(ANSWER_TOKENS) for _ in range(NUM_ANSWERS)))
        for _ in range(NUM_PROMPTS)
    ]


def read_trees(model: ScalarModel, trees: Sequence[Tree]) -> Iterator[tuple[Tensor, int]]:
    for part in _parts(trees, tokens_each=trees[0].num_tokens):
        packed = pack_trees(part, context=model.config.max_positions)
        value_BT = model(
            packed.tokens_BT,
            positions_BT=packed.positions_BT,
            segments_BT=packed.segments_BT,
            branches_BT=packed.branches_BT,
        )
        yield _ranking_loss(value_BT.flatten()[packed.last_N], len(part)), packed.tokens_BT.numel()


def read_separately(model: ScalarModel, trees: Sequence[Tree]) -> Iterator[tuple[Tensor, int]]:
    for part in _parts(trees, tokens_each=NUM_ANSWERS * ROW):
        reward_N, num_tokens = _score(model, [(*tree.prompt, *answer) for tree in part for answer in tree.answers])
        yield _ranking_loss(reward_N, len(part)), num_tokens


def read_pairs(model: ScalarModel, trees: Sequence[Tree]) -> Iterator[tuple[Tensor, int]]:
    pairs = [[(*tree.prompt, *tree.answers[place]) for place in pair] for tree in trees for pair in PAIRS]
    for part in _parts(pairs, tokens_each=2 * ROW):
        reward_N, num_tokens = _score(model, [row for pair in part for row in pair])
        margin_N = reward_N[0::2] - reward_N[1::2]
        yield -torch.nn.functional.logsigmoid(margin_N).sum() / len(PAIRS), num_tokens


def _parts(items: Sequence[Item], *, tokens_each: int) -> Iterator[Sequence[Item]]:
    size = PART_TOKENS // tokens_each
    return (items[start : start + size] for start in range(0, len(items), size))


def _score(model: ScalarModel, rows: Sequence[Sequence[int]]) -> tuple[Tensor, int]:
    packed = pack_sequences(rows, context=ROW)
    value_BT = model(packed.tokens_BT, segments_BT=packed.segments_BT)
    return value_BT.flatten()[packed.last()], packed.tokens_BT.numel()


def _ranking_loss(reward_N: Tensor, num_prompts: int) -> Tensor:
    better_BKK = torch.ones(num_prompts, NUM_ANSWERS, NUM_ANSWERS).triu(1)  # the answers stand best first
    return ranking_loss(reward_N.view(num_prompts, NUM_ANSWERS), better_BKK, denominator=1.0)


WAYS: dict[str, Read] = {"tree": read_trees, "separate": read_separately, "pairwise": read_pairs}


def measure(model: ScalarModel, batches: Sequence[Sequence[Tree]]) -> dict[str, list[dict[str, float]]]:
    """Return loss, tokens, wall and processor seconds of every way on every turn's prompts, after a warming turn."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for number, batch in enumerate((batches[0][:1], *batches)):
        for name, read in WAYS.items():
            model.zero_grad(set_to_none=True)
            wall, processor = time.perf_counter(), time.process_time()
            loss_sum, num_tokens = 0.0, 0
            parts = read(model, batch)
            while True:
                with torch.autocast("cpu", torch.bfloat16):
                    part = next(parts, None)
                if part is None:
                    break
                part[0].backward()
                loss_sum, num_tokens = loss_sum + part[0].item(), num_tokens + part[1]
            seconds = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
            if number:
                taken[name].append({"loss": loss_sum, "tokens": num_tokens, **seconds})
    return taken


def ratios(taken: dict[str, list[dict[str, float]]], name: str, clock: str) -> list[float]:
    """Return how many times as long as trees another way takes, turn by turn."""
    return [theirs[clock] / ours[clock] for theirs, ours in zip(taken[name], taken["tree"], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny", help="with 1,024 positions")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompts", type=int, default=NUM_PROMPTS, help="fewer for a quick look")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "reward.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tune_allocator()
    config = PRESETS[arguments.preset].model_copy(update={"max_positions": 1024})
    model = ScalarModel(config, torch_generator(0))
    trees = random_trees(config.vocab_size)[: arguments.prompts]
    taken = measure(model, [trees[start : start + TURN] for start in range(0, len(trees), TURN)])

    summary = {}
    for name, found in taken.items():
        total = {key: sum(one[key] for one in found) for key in ("loss", "tokens", "wall", "processor")}
        summary[name] = total
        line = f"{name:10}{total['tokens']:11,.0f} tokens, loss a prompt {total['loss'] / len(trees):.3f}, "
        print(f"{line}{total['processor']:7.1f} s of processor, {total['wall']:7.1f} s of wall", flush=True)
    for name in ("separate", "pairwise"):
        fewer = summary[name]["tokens"] / summary["tree"]["tokens"]
        for clock in ("processor", "wall"):
            found = ratios(taken, name, clock)
            print(
                f"tree against {name}: {statistics.median(found):.2f} times as fast by {clock} time "
                f"({min(found):.2f} to {max(found):.2f}), {fewer:.1f} times fewer tokens"
            )
    result = {
        "machine": describe_machine(),
        "shape": {
            "preset": arguments.preset,
            "prompts": len(trees),
            "prompt_tokens": PROMPT_TOKENS,
            "answers": NUM_ANSWERS,
            "answer_tokens": ANSWER_TOKENS,
            "precision": "bfloat16 autocast",
            "prompts_a_turn": TURN,
            "tokens_a_part": PART_TOKENS,
        },
        "turns": taken,
    }
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(result) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
