"""What a model costs before anything is trained: days, money, memory, and how much text it deserves.

Pure arithmetic over `model.size` and `memory.py`; the laws are published ones, each named at its function.

Units: bytes, seconds of one device, days of all devices, money in whatever the hourly price is in.
"""

from __future__ import annotations

from dataclasses import dataclass

from sanbai.model.size import Operations, Parameters, Shape, count_operations, count_parameters
from sanbai.training.memory import (
    Layout,
    Recompute,
    ServingMemory,
    TrainingMemory,
    layouts,
    serving_memory,
    training_memory,
)

GIGABYTE = 10**9
SECONDS_A_DAY = 86_400
#: Hoffmann et al. 2022, arXiv:2203.15556: tokens a parameter of a compute-optimal model.
TOKENS_A_PARAMETER = 20
#: T5's span corruption turns 512 tokens of source into 114 of target (Raffel et al. 2020, arXiv:1910.10683).
TARGET_SHARE = 114 / 512


@dataclass(frozen=True)
class Accelerator:
    """A device's peak and size, from its data sheet: dense half-precision products, float32 sums."""

    name: str
    operations_per_second: float
    memory_bytes: int


ACCELERATORS = {
    "v100": Accelerator("NVIDIA V100 32 GB", 125e12, 32 * GIGABYTE),
    "a100": Accelerator("NVIDIA A100 80 GB", 312e12, 80 * GIGABYTE),
    "h100": Accelerator("NVIDIA H100 80 GB", 989e12, 80 * GIGABYTE),
    "h200": Accelerator("NVIDIA H200 141 GB", 989e12, 141 * GIGABYTE),
    "rtx4090": Accelerator("NVIDIA RTX 4090 24 GB", 165e12, 24 * GIGABYTE),
    "mi300x": Accelerator("AMD MI300X 192 GB", 1307e12, 192 * GIGABYTE),
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of a plan beside the shape."""

    accelerator: Accelerator
    count: int
    utilisation: float
    """Share of the devices' peak that training reaches."""
    hourly_price: float
    """Of one device."""
    tokens: float
    """To train on."""
    length: int
    """Tokens of a training sequence; where there is an encoder, it reads these, and the decoder 114 for each 512."""
    rows: int
    """Sequences that a device trains on at once."""
    recompute: Recompute
    """What of the forward pass is computed anew in the backward pass, to save its memory."""
    sequences: int
    """Answered at once in serving, each of `length`."""
    machine_bytes: int
    """Memory of the present machine."""


@dataclass(frozen=True)
class Plan:
    """What came out; everything in the units of the module's docstring."""

    parameters: Parameters
    operations: Operations
    """Of one forward pass over one sequence."""
    operations_per_token: float
    """Of training on one token."""
    optimal_tokens: float
    """What a model of this size deserves."""
    operations_in_all: float
    days: float
    cost: float
    training: dict[str, TrainingMemory]
    """By layout, on one device."""
    fitting: tuple[str, ...]
    """The layouts that fit the accelerator."""
    serving: dict[int, ServingMemory]
    """By devices that share the model."""
    trains_here: bool
    """Whether the present machine can train it alone, one sequence at a time."""
    serves_here: bool
    """Whether it can answer one sequence at a time."""


def make_plan(shape: Shape, request: Request) -> Plan:
    """Work everything out."""
    source, target = 0, request.length
    if shape.encoder_layers:
        source, target = request.length, max(1, round(request.length * TARGET_SHARE))
    parameters = count_parameters(shape)
    operations = count_operations(shape, target, source_length=source)
    in_all = training_operations(shape, tokens=request.tokens, length=target, source_length=source)
    days = training_days(in_all, request.accelerator, count=request.count, utilisation=request.utilisation)
    memory = {
        layout.name: training_memory(
            shape, layout, rows=request.rows, length=request.length, recompute=request.recompute
        )
        for layout in layouts(request.count, num_experts=shape.num_experts)
    }
    alone = training_memory(shape, Layout(), rows=1, length=request.length, recompute=request.recompute)
    alone_serving = serving_memory(shape, sequences=1, length=request.length)
    return Plan(
        parameters=parameters,
        operations=operations,
        operations_per_token=operations.training / (source + target),
        optimal_tokens=compute_optimal_tokens(parameters.active),
        operations_in_all=in_all,
        days=days,
        cost=training_cost(days, count=request.count, hourly_price=request.hourly_price),
        training=memory,
        fitting=tuple(name for name, held in memory.items() if held.total <= request.accelerator.memory_bytes),
        serving={
            devices: serving_memory(shape, sequences=request.sequences, length=request.length, tensor=devices)
            for devices in (1, 2, 4, 8)
        },
        trains_here=alone.total <= request.machine_bytes,
        serves_here=alone_serving.total <= request.machine_bytes,
    )


def training_operations(shape: Shape, *, tokens: float, length: int, source_length: int = 0) -> float:
    """Return the operations of training on `tokens`, in sequences of `length` (and `source_length` for an encoder)."""
    sequence = count_operations(shape, length, source_length=source_length).training
    return tokens / (length + source_length) * sequence


def training_days(operations: float, accelerator: Accelerator, *, count: int, utilisation: float) -> float:
    """Return days of `count` devices that reach `utilisation` of their peak."""
    return operations / (accelerator.operations_per_second * count * utilisation) / SECONDS_A_DAY


def training_cost(days: float, *, count: int, hourly_price: float) -> float:
    """Return what `count` devices cost for so many days."""
    return days * 24 * count * hourly_price


def compute_optimal_tokens(parameters: float) -> float:
    """Return the tokens that a dense model of this size deserves (Hoffmann et al. 2022, table 3): 20 a parameter.

    For a mixture of experts no such law is established; give its active parameters.
    """
    return TOKENS_A_PARAMETER * parameters


def compute_optimal_parameters(operations: float) -> float:
    """Return the size that a budget is best spent on: C = 6 N D with D = 20 N."""
    return float((operations / (6 * TOKENS_A_PARAMETER)) ** 0.5)
