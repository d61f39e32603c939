"""New weights in the place of old ones, with the proof that they have arrived."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sanbai.foundation.errors import ModelError


def tensor_digest(tensor: Tensor) -> str:
    """Return SHA-256, in hexadecimal, over a tensor's dtype, shape and bytes."""
    whole = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{whole.dtype} {tuple(whole.shape)} ".encode())
    digest.update(whole.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return SHA-256, in hexadecimal, over the names and digests of all tensors in the order of their names."""
    lines = [f"{name} {tensor_digest(tensors[name])}\n" for name in sorted(tensors)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@torch.no_grad()
def replace_weights(model: nn.Module, source: Mapping[str, Tensor]) -> str:
    """Copy weights into a model in place, in its own precision; return the digest of all its tensors.

    Args:
        model: in use again as soon as this returns.
        source: as another model's `state_dict`; may be in another precision or on another device.

    Raises:
        ModelError: names or shapes differ, before anything is changed; or a tensor did not arrive, by its SHA-256.
    """
    target = model.state_dict()
    if odd := sorted(target.keys() ^ source.keys()):
        where = "missing from the new weights" if odd[0] in target else "not of this model"
        raise ModelError(f"{odd[0]}: {where}; give the weights of a model of the same shape")
    for name, tensor in target.items():
        if source[name].shape != tensor.shape:
            raise ModelError(f"{name}: shape {tuple(source[name].shape)}, wanted {tuple(tensor.shape)}")
    for name, tensor in target.items():
        tensor.copy_(source[name])
    for name, tensor in model.state_dict().items():
        if tensor_digest(tensor) != tensor_digest(source[name].to(tensor.dtype)):
            raise ModelError(f"{name}: what arrived is not what was sent; the model is damaged, so load it anew")
    return weights_digest(model.state_dict())
