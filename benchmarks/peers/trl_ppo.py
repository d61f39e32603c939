"""An iteration of trl's `PPOTrainer` a turn; run by the peer's own Python, `benchmarks/bench_alignment.py` says how."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from benchmarks.peers.words import number_tokenizer
from benchmarks.turns import Turns
from datasets import Dataset
from trl import PPOConfig, PPOTrainer


class Pausing(transformers.TrainerCallback):
    """Waits for a turn before each iteration."""

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
    parser.add_argument("folder", type=Path, help="`policy`, `reward` and `prompts.json`")
    parser.add_argument("--weights", choices=["float32", "bfloat16"], required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--minibatch", type=int, required=True)
    parser.add_argument("--microbatch", type=int, required=True)
    parser.add_argument("--new-tokens", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    turns = Turns()

    prompts = json.loads((arguments.folder / "prompts.json").read_text())
    dtype = getattr(torch, arguments.weights)
    policy, reference = (
        transformers.AutoModelForCausalLM.from_pretrained(arguments.folder / "policy", dtype=dtype) for _ in range(2)
    )
    reward, value = (
        transformers.AutoModelForSequenceClassification.from_pretrained(arguments.folder / "reward", dtype=dtype)
        for _ in range(2)
    )
    # Beyond what can be drawn: trl knows padding, and the end, by their ids.
    beyond = policy.config.vocab_size
    tokenizer = number_tokenizer(beyond, pad=beyond, end=beyond)
    data = Dataset.from_dict({"input_ids": prompts})
    batch = len(prompts)
    config = PPOConfig(
        output_dir=str(arguments.folder / "trl"),
        use_cpu=True,
        bf16=arguments.weights == "float32",
        total_episodes=batch * 1000,
        per_device_train_batch_size=batch if arguments.minibatch < batch else arguments.microbatch,
        gradient_accumulation_steps=1 if arguments.minibatch < batch else batch // arguments.microbatch,
        num_mini_batches=batch // arguments.minibatch,
        num_ppo_epochs=arguments.epochs,
        response_length=arguments.new_tokens,
        temperature=1.0,
        learning_rate=1e-6,
        num_sample_generations=0,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        dataloader_pin_memory=False,
    )
    PPOTrainer(
        args=config,
        processing_class=tokenizer,
        model=policy,
        ref_model=reference,
        reward_model=reward,
        value_model=value,
        train_dataset=data,
        eval_dataset=data,
        callbacks=[Pausing(turns)],
    ).train()


if __name__ == "__main__":
    main()
