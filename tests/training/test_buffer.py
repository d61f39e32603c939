from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tests.training.conftest import Open, assert_same_bits
from tests.training.test_ppo import RECIPE, start

from sanbai.data.packing import EncodedItems
from sanbai.foundation.device import Compute
from sanbai.foundation.errors import Interrupted
from sanbai.foundation.run import read_metrics
from sanbai.foundation.stage import Stage
from sanbai.generation.answering import Completion
from sanbai.model.heads import LanguageModel
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.buffer import Buffer, Gathered
from sanbai.training.optimizer import Optimizer
from sanbai.training.rollouts import Readings, Rollouts


def gathered() -> Gathered:
    completions = [
        Completion([7, 6], [-0.1, -1 / 3], [-0.2, -2.0], "stop"),
        Completion([8, 9, 5], [-1.0, -2.0, -3.0], [-1.0, -2.0, -3.5], "length"),
    ]
    readings = Readings(*(torch.randn(2, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(4)))
    return Gathered(Rollouts([[0, 4], [0, 3, 4]], completions), readings, torch.tensor([0.5, -1.5]))


def test_a_loaded_buffer_holds_what_was_saved_to_the_last_bit() -> None:
    buffer, loaded = Buffer(), Buffer()
    assert buffer.tensors() == {}
    held = buffer.fill(gathered())
    buffer.latest_NR[0, 0] = 7.0
    buffer.add_step({"policy_loss": 0.1}, {"value_loss": 0.2})
    buffer.add_step({"policy_loss": 0.2}, {"value_loss": 1 / 3})
    loaded.load(buffer.tensors())
    assert loaded.gathered is not None
    assert [list(prompt) for prompt in loaded.gathered.rollouts.prompts] == held.rollouts.prompts
    assert loaded.gathered.rollouts.completions == held.rollouts.completions
    assert_same_bits(loaded.tensors(), buffer.tensors())
    stale = replace(held, behaviour_logprob_NR=torch.randn(2, 3))
    assert_same_bits(Gathered.from_tensors(stale.tensors()).tensors(), stale.tensors())
    assert loaded.means() == buffer.means() == {"policy_loss": (0.1 + 0.2) / 2, "value_loss": (0.2 + 1 / 3) / 2}
    assert list(loaded.left_of(["first", "second", "third"])) == ["third"]
    loaded.load({})
    assert loaded.gathered is None


Interrupt = Callable[[Stage], None]


@pytest.fixture
def train(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> Callable[..., tuple[dict[str, Any], int]]:
    """Trains under a name, again and again until nothing interrupts; returns the outcome and the number of starts."""
    recipe = RECIPE.model_copy(
        update={
            "learning_rate": 3e-2,
            "num_iterations": 3,
            "judge_iterations": 1,
            "checkpoint_iterations": 100,
            "kl_controller": "adaptive",
            "kl_horizon": 100.0,
        }
    )

    def run(name: str, interrupt: Interrupt = lambda _: None, **changes: Any) -> tuple[dict[str, Any], int]:
        for num_starts in range(1, 500):
            stage = open_stage(name)
            interrupt(stage)
            try:
                metrics = start(stage, compute, model, tokenizer, items, recipe.model_copy(update=changes))
            except Interrupted:
                continue
            rows = read_metrics(stage.run.folder)
            return {
                "metrics": metrics,
                "rows": rows,
                "weights": load_file(stage.folder / "model.safetensors"),
            }, num_starts
        raise AssertionError("no end")

    return run


def assert_same_outcome(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first["metrics"] == second["metrics"]
    assert first["metrics"]["kept_iteration"] > 0  # the weights compared are trained ones
    assert first["rows"] == second["rows"]
    assert_same_bits(first["weights"], second["weights"])


@pytest.mark.parametrize(("patience", "staleness"), [(19, 0), (23, 0), (19, 1), (23, 1)])
def test_trap_25_asked_to_stop_anywhere_again_and_again_it_ends_in_the_same_bits(
    train: Callable[..., tuple[dict[str, Any], int]], patience: int, staleness: int
) -> None:
    """Each start is asked to stop the n-th time it looks: while sampling, reading, learning, or asking the judge."""
    moments = set()

    def interrupt(stage: Stage) -> None:
        look, looks = stage.run.raise_if_stopping, []

        def impatient() -> None:
            looks.append(0)
            if len(looks) == patience:
                stage.job.stop.request()
            look()

        stage.run.raise_if_stopping = impatient  # type: ignore[method-assign]
        found = stage.run.load()
        if found is not None:
            step, tensors, _ = found
            moments.add((step, int(tensors.get("buffer:num_steps", -1))))

    undisturbed, _ = train("undisturbed", staleness=staleness)
    stopped, num_starts = train("stopped", interrupt, staleness=staleness)
    assert num_starts > 5
    assert len({moment for moment in moments if moment[1] > 0}) > 2  # in the middle of updates
    assert_same_outcome(stopped, undisturbed)


@pytest.mark.parametrize("staleness", [0, 1])
@pytest.mark.parametrize("step_killed", [0, 2, 5])
def test_trap_25_stopped_before_any_step_of_an_update_it_goes_on_with_that_step(
    train: Callable[..., tuple[dict[str, Any], int]],
    monkeypatch: pytest.MonkeyPatch,
    step_killed: int,
    staleness: int,
) -> None:
    """An update has four steps of policy and value; the first start stops before the given one of the run."""
    undisturbed, _ = train("undisturbed", staleness=staleness)
    stages: list[Stage] = []
    steps: list[float] = []
    step = Optimizer.step

    def counting(self: Optimizer, rate: float) -> float:
        if len(stages) == 1 and len(steps) == 2 * step_killed:
            stages[0].job.stop.request()
        steps.append(rate)
        return step(self, rate)

    monkeypatch.setattr(Optimizer, "step", counting)
    stopped, num_starts = train("stopped", stages.append, staleness=staleness)
    assert num_starts == 2
    assert len(steps) == 2 * 4 * 3  # none was taken twice
    assert_same_outcome(stopped, undisturbed)
    (checkpoint,) = (stages[0].run.folder / "checkpoints").glob("*")
    with safe_open(checkpoint, "pt") as file:
        names = set(file.keys())
        assert json.loads(file.metadata()["state"])["documents"] != {"epoch": 0, "row": 0}
    assert {name.partition(":")[0] for name in names} >= {
        "policy", "optimizer", "average", "value", "value_optimizer", "brake", "alarms", "kl_controller"
    }  # fmt: skip
