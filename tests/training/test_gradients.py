"""Gradients in parts, against one backward pass over the whole."""

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sanbai.training.gradients import LossPart, _OrderedSum, add_gradient, differentiate, length


def layer() -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(4, 2)


def squares(model: nn.Linear, rows: Tensor) -> LossPart:
    return LossPart(model, lambda: model(rows).square().sum())


def test_parts_add_up_to_the_whole_whatever_the_threads(threads: Callable[[int], None]) -> None:
    model, rows = layer(), torch.arange(24.0).view(6, 4)
    model(rows).square().sum().backward()
    found = []
    for number in (1, 2, 3):
        threads(number)
        done = differentiate({"loss": [squares(model, rows[start : start + 2]) for start in (0, 2, 4)]})["loss"]
        found.append(done)
        for tensor, parameter in zip(done.gradient, model.parameters(), strict=True):
            torch.testing.assert_close(tensor, parameter.grad)
    assert all(torch.equal(a, b) for done in found for a, b in zip(done.gradient, found[0].gradient, strict=True))
    assert found[0].loss == pytest.approx(model(rows).square().sum().item())


def test_no_more_gradients_are_held_than_are_waited_for() -> None:
    """Each part sees how many gradients of parts before it are still there: the sum's own, and never a second one."""
    model, alive, found = layer(), [], []

    def part_of(number: int) -> LossPart:
        def loss() -> Tensor:
            found.append(sum(each() is not None for each in alive))
            weight = model.weight * (1.0 + number)
            weight.register_hook(lambda grad: alive.append(weakref.ref(grad)))
            return (weight * weight).sum()

        return LossPart(model, loss)

    done = differentiate({"loss": [part_of(number) for number in range(6)]})["loss"]
    assert max(found) <= 1
    expected = 2 * model.weight.detach() * sum((1.0 + number) ** 2 for number in range(6))
    torch.testing.assert_close(done.gradient[0], expected)


def test_losses_of_several_models_stay_apart_and_parameters_untouched() -> None:
    first, second = layer(), layer()
    done = differentiate({"a": [squares(first, torch.ones(1, 4))], "b": [squares(second, torch.zeros(1, 4))]})
    assert all(parameter.grad is None for parameter in (*first.parameters(), *second.parameters()))
    assert done["a"].loss != done["b"].loss
    add_gradient(first, done["a"].gradient)
    add_gradient(first, done["a"].gradient)
    assert first.weight.grad is not None
    torch.testing.assert_close(first.weight.grad, 2 * done["a"].gradient[0])


def test_a_frozen_parameter_has_no_part_and_an_unused_one_has_zeros() -> None:
    model = nn.Sequential(layer(), layer())
    model[0].weight.requires_grad_(requires_grad=False)
    part = LossPart(model, lambda: model[0](torch.ones(1, 4)).sum())
    bias, weight_2, bias_2 = differentiate({"loss": [part]})["loss"].gradient
    assert bias.tolist() == [1.0, 1.0]
    assert not weight_2.any()
    assert not bias_2.any()


def test_the_length_is_over_all_tensors() -> None:
    assert length([torch.tensor([3.0]), torch.tensor([[4.0]])]) == 5.0


def test_gradients_are_added_in_the_order_of_their_places_whichever_comes_first() -> None:
    in_turn = (torch.tensor(1e8) + torch.tensor(1.0)) - torch.tensor(1e8)
    assert in_turn == 0.0  # another order gives 1
    gradients = _OrderedSum()
    for place, number in ((2, -1e8), (0, 1e8), (1, 1.0)):
        gradients.add(place, [torch.tensor(number)])
    assert gradients.total == [in_turn]
