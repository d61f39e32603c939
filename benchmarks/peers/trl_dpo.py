"""A step of trl's `DPOTrainer` a turn; run by the peer's own Python, `benchmarks/bench_alignment.py` says how."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from benchmarks.peers.words import as_text, number_tokenizer
from benchmarks.turns import Turns
from datasets import Dataset
from trl import DPOConfig, DPOTrainer


class Pausing(transformers.TrainerCallback):
    """Waits for a turn before each step."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Wait for the first turn."""
        self._turns.wait()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """End the turn, and wait for the next."""
        self._turns.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="`policy` and `pairs.json`")
    parser.add_argument("--weights", choices=["float32", "bfloat16"], required=True)
    parser.add_argument("--microbatch", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    turns = Turns()

    dtype = getattr(torch, arguments.weights)
    policy, reference = (
        transformers.AutoModelForCausalLM.from_pretrained(arguments.folder / "policy", dtype=dtype) for _ in range(2)
    )
    pairs = json.loads((arguments.folder / "pairs.json").read_text())
    end = pairs[0]["chosen"][-1]  # the trainer adds it anew
    rows = [
        {
            "prompt": as_text(pair["prompt"]),
            "chosen": as_text(pair["chosen"][:-1]),
            "rejected": as_text(pair["rejected"][:-1]),
        }
        for pair in pairs
    ]
    DPOTrainer(
        model=policy,
        ref_model=reference,
        args=DPOConfig(
            output_dir=str(arguments.folder / "trl"),
            use_cpu=True,
            bf16=arguments.weights == "float32",
            gradient_checkpointing=False,
            per_device_train_batch_size=arguments.microbatch,
            gradient_accumulation_steps=len(pairs) // arguments.microbatch,
            max_steps=1000,
            learning_rate=1e-6,
            max_length=None,
            max_prompt_length=None,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            dataloader_pin_memory=False,
        ),
        processing_class=number_tokenizer(policy.config.vocab_size, pad=end, end=end),
        train_dataset=Dataset.from_list(rows),
        callbacks=[Pausing(turns)],
    ).train()


if __name__ == "__main__":
    main()
