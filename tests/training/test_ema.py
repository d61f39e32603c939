import pytest
import torch
from torch import nn

from sanbai.training.ema import AverageWeights


def test_the_average_follows_the_recurrence_from_the_first_weights() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 1.0)
    average = AverageWeights(layer, decay=0.9)
    expected = 1.0
    for value in (2.0, -1.0, 5.0):
        nn.init.constant_(layer.weight, value)
        average.update(layer)
        expected = 0.9 * expected + 0.1 * value
    assert average.tensors()["weight"].item() == pytest.approx(expected)


def test_a_loaded_average_is_the_saved_one() -> None:
    layer = nn.Linear(2, 2)
    average, other = AverageWeights(layer, decay=0.5), AverageWeights(nn.Linear(2, 2), decay=0.5)
    other.load(average.tensors())
    assert all(torch.equal(other.tensors()[name], tensor) for name, tensor in average.tensors().items())
