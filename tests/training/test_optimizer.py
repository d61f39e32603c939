"""Oracle: AdamW written out in plain floats."""

import math

import pytest
import torch
from torch import nn

from sanbai.foundation.errors import CheckpointError
from sanbai.training.optimizer import Optimizer, OptimizerRecipe


def test_trap_24_steps_follow_the_formula_with_epsilon_beside_the_root_and_decay_on_matrices_only() -> None:
    recipe = OptimizerRecipe(beta1=0.8, beta2=0.9, epsilon=0.1, weight_decay=0.5, max_grad_norm=100.0)
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, 2.0)
    nn.init.constant_(layer.bias, 3.0)
    optimizer = Optimizer(layer, recipe)
    expected = {"weight": 2.0, "bias": 3.0}
    moments = {name: [0.0, 0.0] for name in expected}
    for step, slope in enumerate([1.0, -3.0, 0.5], start=1):
        for parameter in layer.parameters():
            parameter.grad = torch.full_like(parameter, slope)
        optimizer.step(0.01)
        for name, (mean, square) in moments.items():
            mean, square = 0.8 * mean + 0.2 * slope, 0.9 * square + 0.1 * slope**2  # noqa: PLW2901
            moments[name] = [mean, square]
            decay = 0.5 if name == "weight" else 0.0
            corrected = mean / (1 - 0.8**step) / (math.sqrt(square / (1 - 0.9**step)) + 0.1)
            expected[name] -= 0.01 * decay * expected[name] + 0.01 * corrected
    assert layer.weight.item() == pytest.approx(expected["weight"], rel=1e-6)
    assert layer.bias.item() == pytest.approx(expected["bias"], rel=1e-6)


def test_long_gradients_are_shortened_and_their_length_reported() -> None:
    layer = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(layer.weight)
    recipe = OptimizerRecipe(beta1=0.0, beta2=0.0, epsilon=1.0, max_grad_norm=1.0)
    layer.weight.grad = torch.tensor([[3.0, 4.0]])
    optimizer = Optimizer(layer, recipe)
    assert optimizer.step(1.0) == pytest.approx(5.0)
    # With no memory and ε = 1 a step is g / (|g| + 1) of the clipped g = (0.6, 0.8).
    assert layer.weight[0].tolist() == pytest.approx([-0.6 / 1.6, -0.8 / 1.8], rel=1e-5)
    assert layer.weight.grad is None


def test_trap_25_a_loaded_state_continues_in_the_same_bits() -> None:
    def run(*, interrupted: bool) -> torch.Tensor:
        layer = nn.Linear(4, 3)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
        optimizer = Optimizer(layer, OptimizerRecipe())
        for step in range(6):
            if interrupted and step == 3:
                saved = {name: tensor.clone() for name, tensor in optimizer.tensors().items()}
                optimizer = Optimizer(layer, OptimizerRecipe())
                optimizer.load(saved)
            layer(torch.full((1, 4), float(step))).square().sum().backward()
            optimizer.step(0.1)
        return layer.weight.detach()

    assert torch.equal(run(interrupted=True), run(interrupted=False))


def test_a_state_of_other_parameters_is_refused() -> None:
    source = Optimizer(nn.Linear(1, 1), OptimizerRecipe())
    with pytest.raises(CheckpointError, match="only on one side"):
        source.load({"elsewhere/step": torch.tensor(1.0)})
