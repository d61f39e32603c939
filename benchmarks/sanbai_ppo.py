"""An iteration of `training.ppo.train_ppo` a turn: the whole of it, as a run does it, its log and averages included."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.turns import Turns

from sanbai.data.packing import EncodedItems
from sanbai.foundation.device import Compute, apply_compute
from sanbai.foundation.progress import SilentProgress
from sanbai.foundation.run import Run
from sanbai.foundation.stage import Job, Stage
from sanbai.foundation.stop import StopSignal
from sanbai.foundation.workspace import Workspace
from sanbai.model.hugging_face import load_language_model, load_scalar_model
from sanbai.text.chat_template import EncodedConversation
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.ppo import PpoRecipe, train_ppo
from sanbai.training.reward_model import Calibration, RewardModel


class Pausing:
    """A progress bar that waits for a turn after each iteration."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def advance(self, step: int, **numbers: float) -> None:  # noqa: ARG002 - the protocol's names
        """Wait for the next turn."""
        self._turns.wait()

    def finish(self) -> None:
        """Do nothing."""


def open_stage(folder: Path, turns: Turns) -> Stage:
    """Return a stage whose steps are turns, in a folder that exists."""
    job = Job(Workspace(folder), SilentProgress(), StopSignal())
    return Stage("turns", folder / "artifact", Run(folder / "run", Pausing(turns), job.stop), 0, {}, job)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="`policy`, `reward`, `prompts.json` and `documents.json`")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--minibatch", type=int, required=True)
    parser.add_argument("--new-tokens", type=int, required=True)
    parser.add_argument("--micro-batch-tokens", type=int, required=True)
    parser.add_argument("--ptx", action="store_true", help="with as many rows of documents as answers, as long as they")
    arguments = parser.parse_args()
    turns = Turns()

    folder = arguments.folder
    prompts = json.loads((folder / "prompts.json").read_text())
    documents = json.loads((folder / "documents.json").read_text())
    compute = Compute(num_threads=1, precision="bfloat16")
    apply_compute(compute)
    recipe = PpoRecipe(
        num_iterations=1000,
        batch_prompts=len(prompts),
        minibatch_prompts=arguments.minibatch,
        num_epochs=arguments.epochs,
        micro_batch_tokens=arguments.micro_batch_tokens,
        max_new_tokens=arguments.new_tokens,
        rollout_rows=len(prompts),
        learning_rate=1e-6,
        value_learning_rate=1e-6,
        ptx_coef=27.8 if arguments.ptx else 0.0,
        ptx_ratio=1.0,
        ptx_row_length=len(prompts[0]) + arguments.new_tokens,
        judge_iterations=1000,
        checkpoint_iterations=1000,
    )
    judge = RewardModel(load_scalar_model(folder / "reward"), Calibration(1, 0.0, 0.0, 1.0), compute)
    train_ppo(
        open_stage(folder, turns),
        recipe,
        compute,
        policy=load_language_model(folder / "policy"),
        value=load_scalar_model(folder / "reward"),
        reward=judge,
        judge=judge,
        tokenizer=Tokenizer.load(folder / "policy"),
        prompts=prompts,
        judge_prompts=prompts,
        pretraining=EncodedItems([EncodedConversation(tokens, [1] * len(tokens)) for tokens in documents]),
    )


if __name__ == "__main__":
    main()
