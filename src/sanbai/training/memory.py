"""How much memory a model takes, in training by each way to lie over devices, and in serving; pure arithmetic.

Units: bytes on one device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sanbai.model.size import Shape, count_parameters

#: Of mixed-precision Adam: half-precision weight and gradient; float32 weight, mean and square.
WEIGHT_BYTES, GRADIENT_BYTES, OPTIMIZER_BYTES = 2, 2, 12

Sharding = Literal["nothing", "optimizer", "gradients", "weights"]
Recompute = Literal["nothing", "scores", "all"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a model lies over devices; `data * tensor * pipeline` of them."""

    name: str = "one copy a device"
    data: int = 1
    """Copies that each read another part of the batch."""
    tensor: int = 1
    """Devices that share each matrix."""
    pipeline: int = 1
    """Devices that hold consecutive layers each."""
    experts: int = 1
    """Of the `data` devices, how many divide the experts among them; divides `data`."""
    sharding: Sharding = "nothing"
    """What the copies divide among them (ZeRO stages 1 to 3), each with what stands before it."""

    @property
    def num_devices(self) -> int:
        """All devices."""
        return self.data * self.tensor * self.pipeline


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on the fullest device."""

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.weights + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True)
class ServingMemory:
    """Bytes on each device."""

    weights: float
    cache: float

    @property
    def total(self) -> float:
        """Both."""
        return self.weights + self.cache


def layouts(num_devices: int, *, num_experts: int = 1, tensor: int = 8) -> list[Layout]:
    """Return the usual ways to lie on `num_devices`, plainest first.

    Args:
        num_devices: how many there are.
        num_experts: above 1, experts divided over the devices are among the ways.
        tensor: devices that are joined closely enough to share a matrix.
    """
    found = [Layout(name="copies", data=num_devices)]
    if num_devices == 1:
        return found
    sharded: dict[str, Sharding] = {
        "copies, optimizer sharded": "optimizer",
        "copies, gradients sharded": "gradients",
        "fully sharded": "weights",
    }
    found += [Layout(name=name, data=num_devices, sharding=sharding) for name, sharding in sharded.items()]
    tensor = _divisor(num_devices, tensor)
    if tensor > 1:
        found.append(Layout(name=f"tensor {tensor}", data=num_devices // tensor, tensor=tensor))
    pipeline = _divisor(num_devices // tensor, 8)
    if pipeline > 1:
        name = f"tensor {tensor}, pipeline {pipeline}"
        data = num_devices // tensor // pipeline
        found.append(Layout(name=name, data=data, tensor=tensor, pipeline=pipeline))
    divided = _divisor(num_devices, num_experts)
    if divided > 1:
        name = f"experts over {divided}, optimizer sharded"
        found.append(Layout(name=name, data=num_devices, experts=divided, sharding="optimizer"))
    return found


def training_memory(shape: Shape, layout: Layout, *, rows: int, length: int, recompute: Recompute) -> TrainingMemory:
    """Return what one device must hold: mixed-precision Adam's 16 bytes a parameter, and activations.

    Weights, gradients and optimizer by ZeRO (Rajbhandari et al. 2019, arXiv:1910.02054, section 3 and figure 1).

    Args:
        shape: of the model.
        layout: over which devices it lies.
        rows: sequences that one copy reads at once.
        length: tokens of each.
        recompute: see `activation_bytes`.
    """
    parameters = count_parameters(shape)
    divided = layout.tensor * layout.pipeline
    pieces = (
        ((parameters.embeddings + parameters.dense) / divided, layout.data),
        (parameters.experts / divided / layout.experts, layout.data // layout.experts),
    )
    order = ("nothing", "optimizer", "gradients", "weights").index(layout.sharding)

    def held(bytes_each: int, stage: int) -> float:
        return sum(bytes_each * number / (copies if order >= stage else 1) for number, copies in pieces)

    return TrainingMemory(
        weights=held(WEIGHT_BYTES, 3),
        gradients=held(GRADIENT_BYTES, 2),
        optimizer=held(OPTIMIZER_BYTES, 1),
        activations=activation_bytes(shape, rows=rows, length=length, recompute=recompute, tensor=layout.tensor),
    )


def activation_bytes(shape: Shape, *, rows: int, length: int, recompute: Recompute, tensor: int = 1) -> float:
    """Return the bytes kept for the backward pass by Korthikanti et al. 2022, arXiv:2205.05198, eq. 2 to 6.

    A layer keeps 18 bytes of each of a token's `width` values, 4 of each inner value of its feed-forward, and of each
    head 5 for each token that is looked at (34 h + 5 a s of width h, a heads, s tokens, inner width 4 h). Recomputing
    the scores drops the last term, recomputing all leaves the layer's input. Tensor parallelism, with sequence
    parallelism beside it, divides all. A pipeline's first device has as many batches in flight as there are stages, so
    a pipeline saves nothing here.
    """
    tokens = rows * length
    inner = (2 if shape.gated else 1) * shape.feed_forward_width * (shape.top_k if shape.num_experts > 1 else 1)
    layer = {
        "nothing": 18 * shape.width + 4 * inner + 5 * shape.num_heads * length,
        "scores": 18 * shape.width + 4 * inner,
        "all": 2 * shape.width,
    }[recompute]
    return tokens * (shape.num_layers + shape.encoder_layers) * layer / tensor


def serving_memory(
    shape: Shape, *, sequences: int, length: int, bytes_per_number: float = 2, tensor: int = 1
) -> ServingMemory:
    """Return what serving holds: the weights, and keys and values of every token of every sequence.

    Args:
        shape: of the model.
        sequences: answered at once.
        length: tokens of each, prompt and answer; where there is an encoder, of its text and of the answer each.
        bytes_per_number: 2 in half precision, 1 and 0.5 where weights and cache are quantised.
        tensor: devices that share the model.
    """
    token = 2 * shape.num_layers * shape.kv_heads_width * bytes_per_number * (2 if shape.encoder_layers else 1)
    weights = count_parameters(shape).total * bytes_per_number
    return ServingMemory(weights / tensor, sequences * length * token / tensor)


def _divisor(number: int, most: int) -> int:
    """Return the largest divisor of `number` that is at most `most`."""
    return max(divisor for divisor in range(1, min(number, most) + 1) if number % divisor == 0)
