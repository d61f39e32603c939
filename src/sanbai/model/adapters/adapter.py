"""Giving a model an adapter, and taking it off again.

The model is changed in place: its own parameters stop learning and keep their names and their bits, the adapter's are
added. A merged or removed adapter leaves a model like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sanbai.foundation.errors import ModelError
from sanbai.model.adapters.low_rank import LowRankLinear, Rows
from sanbai.model.adapters.prompts import EncodedTokens, Prefix, VirtualTokens
from sanbai.model.adapters.recipe import AdapterRecipe, Projection
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.model.hugging_face import Model, layout_for
from sanbai.model.layouts.layout import Head, Layout, stored_parameters
from sanbai.model.reading_heads import Classifier, SpanModel
from sanbai.model.transformer import Transformer

PROJECTIONS: dict[str, tuple[Projection, ...]] = {
    "attention.qkv": ("query", "key", "value"),
    "attention.out": ("out",),
    "cross.query": ("query",),
    "cross.key_value": ("key", "value"),
    "cross.out": ("out",),
    "feed_forward.gate": ("gate",),
    "feed_forward.up": ("up",),
    "feed_forward.down": ("down",),
}
"""What our linear layers project, by their last two names."""


@dataclass(frozen=True, slots=True)
class Adapted:
    """A model with an adapter."""

    model: Model
    recipe: AdapterRecipe
    layout: Layout
    head: Head

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the adapter's parameters by name; they alone learn."""
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def linears(self) -> Iterator[tuple[str, LowRankLinear]]:
        """Yield the layers that LoRA stands beside, by name."""
        yield from ((name, module) for name, module in self.model.named_modules() if isinstance(module, LowRankLinear))


def add_adapter(model: Model, recipe: AdapterRecipe, generator: torch.Generator) -> Adapted:
    """Give a model a fresh adapter. LoRA changes nothing until it learns; prompts start from random tokens.

    Args:
        model: changed in place.
        recipe: section `[adapter]`, with a method.
        generator: of the fresh numbers.

    Raises:
        ModelError: no stock architecture has the model's shape, it has an adapter already, nothing in it fits the
            targets, or it has no place for virtual tokens.
    """
    if recipe.method == "none":
        raise ModelError("adapter.method is none; name one of lora, prompt, p_tuning, prefix")
    adapted = prepare(model, recipe)
    try:
        if recipe.method == "lora":
            _start_factors(adapted, generator)
        else:
            trunk = prompted_trunk(model)
            _start_prompt(put_prompt(trunk, recipe), trunk, generator)
    except ModelError:
        remove_adapter(adapted)
        raise
    return adapted


def merge_adapter(adapted: Adapted) -> Model:
    """Return the model with LoRA's products added to its weights, like any other model; its parameters learn again.

    Raises:
        ModelError: the adapter is a prompt, which no weight can stand for.
    """
    if adapted.recipe.method != "lora":
        raise ModelError(f"an adapter of method {adapted.recipe.method} cannot be merged; keep it beside the model")
    for name, linear in list(adapted.linears()):
        adapted.model.set_submodule(name, linear.merged())
    adapted.model.requires_grad_(True)
    return adapted.model


def remove_adapter(adapted: Adapted) -> Model:
    """Return the model as it was before; its parameters learn again."""
    for name, linear in list(adapted.linears()):
        adapted.model.set_submodule(name, linear.base())
    for module in adapted.model.modules():
        if isinstance(module, Transformer) and module.prompt is not None:
            module.config = _with_room(module.config, module.config.max_positions + module.prompt.num_positions)
            module.prompt = None
    adapted.model.requires_grad_(True)
    return adapted.model


def prepare(model: Model, recipe: AdapterRecipe) -> Adapted:
    """Return a model whose parameters have stopped learning, still without an adapter.

    Raises:
        ModelError: no stock architecture has its shape, or it has an adapter already.
    """
    if any(isinstance(each, LowRankLinear | VirtualTokens | Prefix) for each in model.modules()):
        raise ModelError("the model has an adapter already; merge or remove it first")
    layout, head = layout_for(model)
    model.requires_grad_(False)
    return Adapted(model, recipe, layout, head)


def adaptable(adapted: Adapted) -> Iterator[tuple[str, list[tuple[Rows, Sequence[Projection]]]]]:
    """Yield each linear layer inside the blocks with its pieces, and what each of them projects."""
    for name, stored in stored_parameters(adapted.model, adapted.layout, adapted.head):
        module, _, part = name.rpartition(".")
        projections = PROJECTIONS.get(".".join(module.split(".")[-2:]))
        if part != "weight" or projections is None:
            continue
        starts = [sum(stored.sizes[:index]) for index in range(len(stored.sizes))]
        names = [each.removesuffix(".weight") for each in stored.names]
        rows = [Rows(*each) for each in zip(names, starts, stored.sizes, strict=True)]
        whole = len(rows) == 1
        yield (
            module,
            [(each, projections if whole else projections[index : index + 1]) for index, each in enumerate(rows)],
        )


def put_factors(model: Model, name: str, rows: Sequence[Rows], recipe: AdapterRecipe) -> LowRankLinear:
    """Put LoRA's factors beside one linear layer and return what stands in its place."""
    base = model.get_submodule(name)
    assert isinstance(base, nn.Linear)
    linear = LowRankLinear(base, rows, recipe).train(base.training)
    model.set_submodule(name, linear)
    return linear


def prompted_trunk(model: Model) -> Transformer:
    """Return the trunk that virtual tokens can stand before.

    Raises:
        ModelError: it looks ahead, follows an encoder, or tells positions by their distance in the row.
    """
    trunk = model if isinstance(model, Transformer) else None
    if isinstance(model, LanguageModel | ScalarModel | Classifier | SpanModel):
        trunk = model.trunk
    if (
        trunk is None
        or trunk.config.bidirectional
        or trunk.config.encoder_layers
        or trunk.config.positions == "relative"
    ):
        raise ModelError(
            "virtual tokens need a model that reads from left to right and has no encoder or relative positions; "
            "use adapter.method lora"
        )
    return trunk


def put_prompt(trunk: Transformer, recipe: AdapterRecipe) -> VirtualTokens | Prefix:
    """Put virtual positions before a trunk, their numbers yet to be filled, and return them.

    The trunk's `max_positions` become fewer by as many: they are what is left for a text.

    Raises:
        ModelError: they leave no room for a text.
    """
    config, number, like = trunk.config, recipe.num_virtual_tokens, trunk.token_embedding.weight
    if number >= config.max_positions:
        raise ModelError(
            f"adapter.num_virtual_tokens {number} leaves no room in a model of {config.max_positions} positions"
        )
    if recipe.method == "prefix":
        trunk.prompt = Prefix(number, config, like=like)
    elif recipe.method == "p_tuning":
        trunk.prompt = EncodedTokens(number, config, recipe.encoder_width, like=like)
    else:
        trunk.prompt = VirtualTokens(number, config, like=like)
    trunk.config = _with_room(config, config.max_positions - number)
    return trunk.prompt


def _with_room(config: ModelConfig, max_positions: int) -> ModelConfig:
    return config.model_copy(update={"max_positions": max_positions})


def _start_factors(adapted: Adapted, generator: torch.Generator) -> None:
    """Put fresh factors beside every layer that the targets name."""
    recipe = adapted.recipe
    for name, pieces in list(adaptable(adapted)):
        rows = [each for each, projections in pieces if not set(recipe.targets).isdisjoint(projections)]
        if rows:
            put_factors(adapted.model, name, rows, recipe).initialise(generator)
    if not adapted.parameters():
        raise ModelError(f"no layer projects {', '.join(recipe.targets)}; adapter.targets must name one that is there")


@torch.no_grad()
def _start_prompt(prompt: VirtualTokens | Prefix, trunk: Transformer, generator: torch.Generator) -> None:
    """Fill a prompt with the embeddings of random tokens, a prefix with what the model offers of them."""
    ids_P = torch.randint(trunk.config.vocab_size, (prompt.num_positions,), generator=generator)
    vectors_PE: Tensor = trunk.token_embedding(ids_P.to(trunk.token_embedding.weight.device))
    if isinstance(prompt, Prefix):
        prompt.start_from(trunk.read_vectors(vectors_PE.unsqueeze(0)))
        return
    prompt.vectors_PE.copy_(vectors_PE)
    if isinstance(prompt, EncodedTokens):
        prompt.initialise(generator)
