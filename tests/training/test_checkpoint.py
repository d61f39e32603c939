from __future__ import annotations

import pytest
import torch
from tests.training.conftest import Open
from torch import nn

from sanbai.foundation.errors import CheckpointError, Interrupted
from sanbai.training.checkpoint import Checkpoints, Weights, cursor_in


def test_a_request_to_stop_saves_and_leaves_and_the_next_start_continues_there(open_stage: Open) -> None:
    stage, layer = open_stage(), nn.Linear(2, 2)
    checkpoints = Checkpoints(stage.run, 100, model=Weights(layer))
    assert checkpoints.resume() == (0, {})
    checkpoints.after_step(3, {"rows": {"epoch": 1, "row": 2}})  # not yet time
    stage.job.stop.request()
    with pytest.raises(Interrupted):
        checkpoints.after_step(4, {"rows": {"epoch": 1, "row": 5}})
    fresh = nn.Linear(2, 2)
    step, state = Checkpoints(open_stage().run, 100, model=Weights(fresh)).resume()
    assert step == 4
    assert (cursor_in(state, "rows").epoch, cursor_in(state, "rows").row) == (1, 5)
    assert torch.equal(fresh.weight, layer.weight)
    assert cursor_in({}, "rows").epoch == 0


def test_long_work_that_is_stopped_leaves_everything_saved_as_it_was_before(open_stage: Open) -> None:
    stage, layer = open_stage(), nn.Linear(2, 2)
    checkpoints = Checkpoints(stage.run, 100, model=Weights(layer))
    with checkpoints.saving_if_stopped(6, {}):
        stage.run.raise_if_stopping()  # nobody asked
    assert stage.run.load() is None
    stage.job.stop.request()
    with pytest.raises(Interrupted), checkpoints.saving_if_stopped(7, {"rows": {"epoch": 2, "row": 1}}):
        stage.run.raise_if_stopping()
    fresh = nn.Linear(2, 2)
    step, state = Checkpoints(open_stage().run, 100, model=Weights(fresh)).resume()
    assert step == 7
    assert cursor_in(state, "rows").epoch == 2
    assert torch.equal(fresh.weight, layer.weight)


def test_weights_of_another_shape_are_refused_with_the_name() -> None:
    with pytest.raises(CheckpointError, match="weight is"):
        Weights(nn.Linear(2, 2)).load(Weights(nn.Linear(3, 2)).tensors())
    with pytest.raises(CheckpointError, match="only on one side"):
        Weights(nn.Linear(2, 2)).load(Weights(nn.Linear(2, 2, bias=False)).tensors())
