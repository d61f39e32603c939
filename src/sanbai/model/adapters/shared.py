"""Several models over one set of weights, each with an adapter and a head of its own, or none.

Which adapter is on is no state that anybody sets: each model is a tree of modules of its own, in which factors stand
beside some layers, and the trees hold the same parameters. Any number of threads may run any of them at once, and a
model without an adapter is the base, whatever the others have learnt.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn

from sanbai.foundation.device import Compute
from sanbai.model.adapters.adapter import Adapted, add_adapter
from sanbai.model.adapters.low_rank import LowRankLinear
from sanbai.model.adapters.recipe import AdapterRecipe
from sanbai.model.hugging_face import Model

AnyModel = TypeVar("AnyModel", bound=nn.Module)


def over_same_weights(model: AnyModel) -> AnyModel:
    """Return modules of their own over a model's parameters: an adapter that one is given is not in the other."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


def adapt(model: Model, recipe: AdapterRecipe, generator: torch.Generator, compute: Compute) -> Adapted:
    """Return a model of the same weights with a fresh adapter, placed; the given one has none.

    Args:
        model: left as it is.
        recipe: section `[adapter]`, with a method.
        generator: of the fresh numbers.
        compute: precision and device.

    Raises:
        ModelError: as `add_adapter`.
    """
    fresh = add_adapter(over_same_weights(model), recipe, generator)
    (placed,) = place_models([fresh.model], device=compute.device, product_dtype=compute.product_dtype)
    return replace(fresh, model=placed)


def copy_learning(model: AnyModel) -> AnyModel:
    """Return a copy that has its own of what learns, and shares what does not."""
    frozen = (parameter for parameter in model.parameters() if not parameter.requires_grad)
    return copy.deepcopy(model, {id(parameter): parameter for parameter in frozen})


def place_models(models: Sequence[nn.Module], *, device: torch.device | str, product_dtype: torch.dtype) -> list[Any]:
    """Return copies on a device that share with each other what the models share.

    Memory: nothing for a parameter that needs no change; the copy then holds the same numbers.

    Args:
        models: left as they are.
        device: of the copies.
        product_dtype: of frozen linear layers. With autocast's, which casts them at every product, no number changes;
            embeddings and norms, which it leaves alone, stay as they are.
    """
    placed: dict[int, Any] = {}
    for model in models:
        for module in model.modules():
            makes_products = isinstance(module, nn.Linear | LowRankLinear)
            for parameter in module.parameters(recurse=False):
                learns = parameter.requires_grad
                dtype = product_dtype if makes_products and not learns else parameter.dtype
                moved = parameter.detach().to(device, dtype)
                placed.setdefault(id(parameter), nn.Parameter(moved, requires_grad=learns))
    copied: list[Any] = copy.deepcopy(list(models), placed)
    return copied
