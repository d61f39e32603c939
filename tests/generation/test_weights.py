"""Digests against hashlib by hand, and what is refused."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import nn

from sanbai.foundation.errors import ModelError
from sanbai.generation.weights import replace_weights, tensor_digest, weights_digest


def test_a_digest_is_of_dtype_shape_and_bytes() -> None:
    tensor = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    expected = hashlib.sha256(b"torch.float32 (2, 2) " + tensor.numpy().tobytes()).hexdigest()
    assert tensor_digest(tensor) == expected
    assert tensor_digest(tensor.T) == tensor_digest(tensor.T.contiguous()) != expected
    assert tensor_digest(tensor.flatten()) != expected
    assert weights_digest({"b": tensor, "a": tensor}) == weights_digest({"a": tensor, "b": tensor})
    assert weights_digest({"a": tensor}) != weights_digest({"b": tensor})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weights_arrive_in_the_models_own_precision(dtype: torch.dtype) -> None:
    source, target = nn.Linear(3, 4), nn.Linear(3, 4).to(dtype)
    places = {name: tensor.data_ptr() for name, tensor in target.state_dict().items()}
    digest = replace_weights(target, source.state_dict())
    assert {name: tensor.data_ptr() for name, tensor in target.state_dict().items()} == places
    assert torch.equal(target.weight, source.weight.to(dtype))
    assert digest == weights_digest({name: tensor.to(dtype) for name, tensor in source.state_dict().items()})


def test_other_shapes_and_names_are_refused_before_anything_changes() -> None:
    target = nn.Linear(3, 4)
    before = weights_digest(target.state_dict())
    with pytest.raises(ModelError, match="bias: missing from the new weights"):
        replace_weights(target, nn.Linear(3, 4, bias=False).state_dict())
    with pytest.raises(ModelError, match=r"weight: shape \(5, 3\), wanted \(4, 3\)"):
        replace_weights(target, {"weight": torch.ones(5, 3), "bias": torch.ones(4)})
    assert weights_digest(target.state_dict()) == before


def test_a_tensor_that_did_not_arrive_is_noticed() -> None:
    target = nn.Linear(3, 4)
    source = {"weight": torch.full((4, 3), float("nan")), "bias": torch.ones(4)}
    assert replace_weights(target, source)  # bytes are compared: not-a-number equals itself

    class Forgetful(nn.Linear):
        def state_dict(self, *args: object, **kwargs: object) -> dict[str, torch.Tensor]:  # type: ignore[override]
            return {name: tensor.clone() for name, tensor in super().state_dict().items()}

    with pytest.raises(ModelError, match="what arrived is not what was sent"):
        replace_weights(Forgetful(3, 4), source)
