"""Alignment beside trl 0.24, the last whose PPO was no experiment: iterations of PPO, also with ptx; steps of DPO.

    make bench-alignment
    python -m benchmarks.bench_alignment --repeats 5 --only ppo

Both sides read the same weights (12 million parameters, random, GPT-2's shape) and the same token ids, and do the whole
of their work: ours is `train_ppo` and `train_direct` as a run calls them. Each side is a process of one thread and
they take turns, an iteration each; the first turn warms. Figures are medians of process time, which a busy machine
stretches least; wall time stands beside it. Memory is the most that a process has held, its libraries included.

Precision: products in bfloat16 on both sides. `bf16=True` is trl's own default: weights and optimizer in float32 and
autocast, which is what ours does, though trl samples, and reads reference, value and reward, in float32 then. `weights
in bfloat16` has everything in bfloat16, optimizer too: faster and smaller, and a learning rate of 1e-6 then changes
hardly a weight. trl computes 8 answers or pairs at a time, ours at most 1,024 tokens, which for PPO is as many. No
answer ends before its 64 tokens on either side: the end's logit lies 20 nats below the others.

The peer lives in an environment of its own, made on the first run (`benchmarks/peers/trl-0.24.txt`), and gets glibc's
allocator tuned as `foundation.device.tune_allocator` tunes ours.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import string
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarks.shapes import SHAPES
from benchmarks.turns import Worker

from sanbai.data.rankings import Ranking
from sanbai.foundation.device import describe_machine
from sanbai.foundation.seeds import torch_generator
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.model.hugging_face import save_model
from sanbai.text.chat_template import encode_prompt
from sanbai.text.tokenizer import SMALLEST_VOCABULARY, Tokenizer, train_tokenizer

ROOT = Path(__file__).parents[1]
PEER_ENVIRONMENT = ROOT / ".venv" / "peers" / "trl-0.24"
REQUIREMENTS = ROOT / "benchmarks" / "peers" / "trl-0.24.txt"
CASES = ("ppo", "ptx", "dpo")

NUM_PROMPTS, PROMPT, NEW_TOKENS, EPOCHS = 32, 32, 64, 4
NUM_PAIRS, PAIR_PROMPT, PAIR_ANSWER = 48, 64, 64
TITLES = {
    "ppo": f"PPO iteration, {NUM_PROMPTS} prompts of {PROMPT} tokens, {NEW_TOKENS} new, {EPOCHS} epochs of one step",
    "ptx": f"the same, one epoch, with and without as many rows of {PROMPT + NEW_TOKENS} tokens of text",
    "dpo": f"DPO step, {NUM_PAIRS} pairs, prompts of {PAIR_PROMPT} tokens, answers of {PAIR_ANSWER}",
}
WANTED = {"ppo": "3 x the peer's speed, 0.6 of its memory", "ptx": "1.6 x the time at most", "dpo": "1.5 x"}

THREADS = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
TUNED = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1),
    "MALLOC_TOP_PAD_": str(256 << 20),
}


def write_inputs(folder: Path) -> None:
    """Write what both sides read: `policy` and `reward`, prompts, documents, rankings and the same as pairs of ids."""
    for name in ("policy", "reward", "artifact", "run"):
        (folder / name).mkdir()
    tokenizer = train_tokenizer(["x"], vocab_size=SMALLEST_VOCABULARY)  # bytes alone, no merges
    policy = LanguageModel(SHAPES["12m"], torch_generator(0))
    with torch.no_grad():
        end_ED = policy.head_weight[sorted(tokenizer.reserved.ends())]
        policy.trunk.norm.bias.copy_(-20 * (end_ED / end_ED.square().sum(dim=1, keepdim=True)).sum(dim=0))
    save_model(policy, folder / "policy", tokenizer)
    save_model(ScalarModel.from_language_model(policy, torch_generator(1)), folder / "reward")
    for name, shape, seed in (
        ("prompts", (NUM_PROMPTS, PROMPT), 2),
        ("documents", (8 * NUM_PROMPTS, PROMPT + NEW_TOKENS), 3),
    ):
        ids = torch.randint(SMALLEST_VOCABULARY, policy.config.vocab_size, shape, generator=torch_generator(seed))
        (folder / f"{name}.json").write_text(json.dumps(ids.tolist()))
    rankings = [make_ranking(tokenizer, number) for number in range(NUM_PAIRS)]
    (folder / "rankings.jsonl").write_text("".join(json.dumps(each.to_row()) + "\n" for each in rankings))
    (folder / "pairs.json").write_text(json.dumps([as_pair(tokenizer, each) for each in rankings]))


def make_ranking(tokenizer: Tokenizer, number: int) -> Ranking:
    """Return a prompt with two answers of random letters, a token each."""

    def letters(count: int, name: str) -> str:
        ids = torch.randint(0, 26, (count,), generator=torch_generator(number, name))
        return "".join(string.ascii_lowercase[index] for index in ids)

    around = len(encode_prompt(tokenizer, [{"role": "user", "content": "x"}])) - 1
    prompt = letters(PAIR_PROMPT - around, "prompt")
    answers = tuple(letters(PAIR_ANSWER - 2, name) for name in ("chosen", "rejected"))  # less a space and the end
    return Ranking(str(number), ({"role": "user", "content": prompt},), answers, ((0,), (1,)), "nobody")


def as_pair(tokenizer: Tokenizer, ranking: Ranking) -> dict[str, list[int]]:
    chosen, rejected = ([*tokenizer.encode(answer), tokenizer.reserved.end] for answer in ranking.responses)
    pair = {"prompt": encode_prompt(tokenizer, ranking.messages), "chosen": chosen, "rejected": rejected}
    assert [len(tokens) for tokens in pair.values()] == [PAIR_PROMPT, PAIR_ANSWER, PAIR_ANSWER]
    return pair


def peer_python() -> Path:
    """Return the peer's Python, its environment made if it is missing."""
    python = PEER_ENVIRONMENT / "bin" / "python"
    done = PEER_ENVIRONMENT / "done"
    if not done.exists():
        print(f"making {PEER_ENVIRONMENT}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", PEER_ENVIRONMENT], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", REQUIREMENTS], check=True)
        done.touch()
    return python


def start_workers(case: str, folder: Path, peer: Path) -> dict[str, Worker]:
    """Start both sides of a case; the first is the one that the others are compared with."""

    def ours(script: str, *options: str | int) -> Worker:
        return Worker([sys.executable, "-m", f"benchmarks.{script}", folder, *map(str, options)], THREADS)

    def theirs(script: str, weights: str, *options: str | int) -> Worker:
        command = [peer, "-m", f"benchmarks.peers.{script}", folder, "--weights", weights, *map(str, options)]
        quiet = {"TRL_EXPERIMENTAL_SILENCE": "1", "PYTHONPATH": str(ROOT)}
        return Worker(command, {**THREADS, **TUNED, **quiet})

    rollouts = ("--minibatch", NUM_PROMPTS, "--new-tokens", NEW_TOKENS)
    if case == "ppo":
        options = ("--epochs", EPOCHS, *rollouts)
        return {
            "sanbai": ours("sanbai_ppo", *options, "--micro-batch-tokens", 1024),
            "trl, bf16=True": theirs("trl_ppo", "float32", *options, "--microbatch", 8),
            "trl, weights in bfloat16": theirs("trl_ppo", "bfloat16", *options, "--microbatch", 8),
        }
    if case == "ptx":
        options = ("--epochs", 1, *rollouts, "--micro-batch-tokens", 1024)
        return {"with ptx": ours("sanbai_ppo", *options, "--ptx"), "without": ours("sanbai_ppo", *options)}
    return {
        "sanbai": ours("sanbai_dpo", "--micro-batch-tokens", 1024),
        "trl, bf16=True": theirs("trl_dpo", "float32", "--microbatch", 8),
        "trl, weights in bfloat16": theirs("trl_dpo", "bfloat16", "--microbatch", 8),
    }


def measure(workers: Mapping[str, Worker], *, repeats: int) -> dict[str, list[dict[str, float]]]:
    """Return each worker's turns, after one that warms it."""
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    for repeat in range(repeats + 1):
        for name, worker in workers.items():
            answer = worker.turn()
            if repeat:
                turns[name].append(answer)
    for worker in workers.values():
        worker.close()
    return turns


def show(case: str, turns: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Print medians, the first worker's against each, and how far turns lie apart."""
    print(f"{TITLES[case]}; wanted {WANTED[case]}")
    middle = {
        name: {key: statistics.median(turn[key] for turn in answers) for key in answers[0]}
        for name, answers in turns.items()
    }
    first = next(iter(middle.values()))
    for name, here in middle.items():
        spread = [turn["process"] for turn in turns[name]]
        print(
            f"  {name:26}{here['process']:6.2f} s of process time ({min(spread):.2f} to {max(spread):.2f}), "
            f"{here['wall']:6.2f} s of wall time, {here['peak_bytes'] / 1e6:5.0f} MB; by the first's: "
            f"{here['process'] / first['process']:.2f} x the process time, {here['wall'] / first['wall']:.2f} x the "
            f"wall time, {first['peak_bytes'] / here['peak_bytes']:.2f} of its memory",
            flush=True,
        )


def keep(path: Path, case: str, turns: Mapping[str, Any]) -> None:
    """Put a case's turns into the file of results, in the place of what it held of this case."""
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"cases": {}}
    stored["machine"] = describe_machine() | {"num_threads": 1}
    stored["peer"] = REQUIREMENTS.read_text(encoding="utf-8").split("\n")[1:-1]
    stored["cases"][case] = {"what": TITLES[case], "turns": turns}
    path.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=CASES, nargs="*", default=CASES)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer", type=Path, help="the Python of an environment that has the peer")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "alignment.json")
    arguments = parser.parse_args()
    peer = arguments.peer or peer_python()
    for case in arguments.only:
        with tempfile.TemporaryDirectory() as name:
            write_inputs(Path(name))
            turns = measure(start_workers(case, Path(name), peer), repeats=arguments.repeats)
        show(case, turns)
        keep(arguments.out, case, turns)


if __name__ == "__main__":
    os.environ.update(THREADS)
    main()
