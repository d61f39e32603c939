"""A step of `training.direct.train_direct` a turn."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.sanbai_ppo import open_stage
from benchmarks.turns import Turns

from sanbai.data.rankings import read_rankings
from sanbai.foundation.device import Compute, apply_compute
from sanbai.model.hugging_face import load_language_model
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.direct import DirectRecipe, train_direct


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="`policy` and `rankings.jsonl`")
    parser.add_argument("--micro-batch-tokens", type=int, required=True)
    arguments = parser.parse_args()
    turns = Turns()

    folder = arguments.folder
    compute = Compute(num_threads=1, precision="bfloat16")
    apply_compute(compute)
    rankings = list(read_rankings([folder / "rankings.jsonl"]))
    recipe = DirectRecipe(
        num_epochs=100,
        batch_prompts=len(rankings),
        micro_batch_tokens=arguments.micro_batch_tokens,
        validation_share=0.0,
        checkpoint_steps=1000,
    )
    train_direct(
        open_stage(folder, turns),
        recipe,
        compute,
        policy=load_language_model(folder / "policy"),
        tokenizer=Tokenizer.load(folder / "policy"),
        rankings=rankings,
    )


if __name__ == "__main__":
    main()
