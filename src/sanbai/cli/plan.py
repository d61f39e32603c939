"""`sanbai plan`: what a preset or a recipe would cost, and whether it fits, before anything is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from sanbai.cli.options import json_option, print_record

if TYPE_CHECKING:
    from sanbai.model.size import Shape
    from sanbai.rounds.recipe import Recipe
    from sanbai.training.plan import Plan, Request
    from sanbai.training.stage_memory import StageMemory

    Stages = Mapping[str, Mapping[str, StageMemory]]
    """Way to learn -> stage -> its memory on one device."""

#: Tokens of a training sequence where neither the command nor a recipe says; a shorter context is taken whole.
LENGTH = 2048


@click.command(help="Count what a preset or a recipe needs: parameters, operations, memory, days, cost.")
@click.argument("name")
@click.option("--accelerator", default="a100", show_default=True, help="v100, a100, h100, h200, rtx4090 or mi300x.")
@click.option("--count", type=click.IntRange(1), default=8, show_default=True, help="Accelerators.")
@click.option("--utilisation", type=click.FloatRange(0, 1, min_open=True), default=0.4, show_default=True)
@click.option("--hourly-price", type=click.FloatRange(0), default=2.0, show_default=True, help="What you pay for one.")
@click.option("--tokens", type=click.FloatRange(1), help="To train on. [default: the recipe's, or the compute optimum]")
@click.option("--length", type=click.IntRange(1), help="Tokens of a sequence. [default: the recipe's, or the model's]")
@click.option("--rows", type=click.IntRange(1), default=1, show_default=True, help="Sequences one trains on at once.")
@click.option("--recompute", type=click.Choice(["nothing", "scores", "all"]), default="scores", show_default=True)
@click.option("--sequences", type=click.IntRange(1), default=16, show_default=True, help="Sequences served at once.")
@json_option
def command(name: str, accelerator: str, *, as_json: bool, **numbers: Any) -> None:
    """Print the plan of NAME, a preset or a recipe."""
    from dataclasses import asdict

    from sanbai.foundation.errors import UnknownNameError
    from sanbai.foundation.machine import memory_bytes
    from sanbai.training.plan import ACCELERATORS, Request, make_plan

    if accelerator not in ACCELERATORS:
        raise UnknownNameError(f"{accelerator}: no such accelerator; known: {', '.join(ACCELERATORS)}")
    shape, tokens, length, recipe = _find(name)
    numbers["tokens"] = numbers["tokens"] or tokens
    numbers["length"] = numbers["length"] or length
    request = Request(accelerator=ACCELERATORS[accelerator], machine_bytes=memory_bytes(), **numbers)
    plan = make_plan(shape, request)
    stages = _stages(recipe, shape) if recipe else {}
    for label, value in (*_lines(request, plan), *_stage_lines(request, stages)):
        click.echo(f"{label:<54} {value}")
    if as_json:
        record = {"name": name, "request": asdict(request), **asdict(plan)}
        record["parameters"] |= {"total": plan.parameters.total, "active": plan.parameters.active}
        record["operations"] |= {"total": plan.operations.total, "training": plan.operations.training}
        record["stages"] = {
            way: {stage: {**asdict(held), "total": held.total} for stage, held in found.items()}
            for way, found in stages.items()
        }
        print_record(record)


def _find(name: str) -> tuple[Shape, float, int, Recipe | None]:
    """Return the shape of a preset or a recipe, the tokens to train on, the length of a sequence, and the recipe."""
    from sanbai.cli.recipes import find_recipe, read_recipe
    from sanbai.model.presets import PRESETS
    from sanbai.model.size import count_parameters, shape_of
    from sanbai.training.plan import compute_optimal_tokens

    if name in PRESETS:
        shape = shape_of(PRESETS[name])
        optimum = compute_optimal_tokens(count_parameters(shape).active)
        return shape, optimum, min(LENGTH, PRESETS[name].max_positions), None
    recipe, _ = read_recipe(find_recipe(name))
    shape = shape_of(recipe.model.with_vocabulary(recipe.tokenizer.vocab_size))
    pretrain = recipe.pretrain
    return shape, pretrain.num_steps * pretrain.batch_rows * pretrain.row_length, pretrain.row_length, recipe


def _stages(recipe: Recipe, shape: Shape) -> Stages:
    """Return what the stages that align a model hold, by LoRA where the recipe has it and as whole models."""
    from sanbai.model.adapters.recipe import AdapterRecipe
    from sanbai.training.stage_memory import (
        Aligned,
        direct_memory,
        ppo_memory,
        reward_memory,
        supervise_memory,
    )

    if recipe.pretrain.objective != "causal":
        return {}
    ways = [recipe.adapter] if recipe.adapter.method == "lora" else []
    found = {}
    for adapter in (*ways, AdapterRecipe()):
        model = Aligned(shape, adapter, recipe.compute)
        found["whole models" if model.is_whole else "LoRA"] = {
            "supervise": supervise_memory(model, recipe.supervise),
            "reward": reward_memory(model, recipe.reward, max_answers=recipe.label.max_answers),
            **ppo_memory(model, recipe.ppo, max_prompt_tokens=recipe.reward.max_prompt_tokens),
            "direct": direct_memory(model, recipe.direct, max_answers=recipe.label.max_answers),
        }
    return found


def _stage_lines(request: Request, stages: Stages) -> Iterator[tuple[str, str]]:
    """Yield what each stage holds on one device."""
    for way, found in stages.items():
        for stage, held in found.items():
            fits = "fits" if held.total <= request.accelerator.memory_bytes else "does not fit"
            parts = (held.weights + held.learning, max(held.activations, held.answering))
            name = f"{stage.replace('_', ' ')}, {way}"
            yield f"{name}, on one", f"{_gigabytes(parts[0])} + {_gigabytes(parts[1])} of a pass: {fits}"
            if held.sent:
                yield (
                    f"  weights sent to {stage.removeprefix('ppo_').replace('_', ' ')}s",
                    f"{_gigabytes(held.sent)} of main memory",
                )


def _lines(request: Request, plan: Plan) -> Iterator[tuple[str, str]]:
    """Yield what the table says, line by line."""
    parameters, operations = plan.parameters, plan.operations
    yield "parameters", f"{_short(parameters.total)}, {_short(parameters.active)} of them active"
    yield "forward pass over a sequence", f"{_short(operations.total)} FLOP ({_short(operations.layers)} in the layers)"
    yield "training on a token", f"{_short(plan.operations_per_token)} FLOP"
    yield "compute-optimal tokens", _short(plan.optimal_tokens)
    yield f"training on {_short(request.tokens)} tokens", f"{plan.operations_in_all:.3g} FLOP"
    devices = f"  {request.count} x {request.accelerator.name} at {request.utilisation:.0%}"
    yield devices, f"{_days(plan.days)}, {plan.cost:,.0f} at {request.hourly_price:g} an hour"
    for layout, memory in plan.training.items():
        fits = "fits" if layout in plan.fitting else "does not fit"
        detail = f"{_gigabytes(memory.total - memory.activations)} + {_gigabytes(memory.activations)} of activations"
        yield f"  training memory, {layout}", f"{detail} on each: {fits}"
    for number, serving in plan.serving.items():
        detail = f"{_gigabytes(serving.weights)} + {_gigabytes(serving.cache)} of cache"
        yield f"  serving {request.sequences} sequences on {number}", f"{detail} on each"
    yield "memory of this machine", _gigabytes(request.machine_bytes)
    yield "  trains here", "yes" if plan.trains_here else "no"
    yield "  answers here", "yes" if plan.serves_here else "no"


def _short(number: float) -> str:
    """Return three digits and a unit: 175 B."""
    for size, unit in ((1e24, "Y"), (1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.4g} {unit}"
    return f"{number:.4g}"


def _days(days: float) -> str:
    """Return a duration in the unit that people would say it in."""
    for size, unit in ((365.25, "years"), (1.0, "days"), (1 / 24, "hours"), (1 / 1440, "minutes")):
        if days >= 2 * size:
            return f"{days / size:.1f} {unit}"
    return f"{days * 86_400:.1f} seconds"


def _gigabytes(number: float) -> str:
    return f"{number / 1e9:.3g} GB"
