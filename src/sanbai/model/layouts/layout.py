"""What a family's file says: which heads it has, what its tensors are called, how its settings map to ours.

A layout is data and two functions, `read` (their settings to our fields) and `write` (the other way). It fits a shape
if what it writes reads back as that shape: no setting can be dropped in silence, and no third list must agree with the
two.

A `*` in a name stands for the layer's number, a `#` for the expert's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sanbai.foundation.errors import ModelError
from sanbai.model.config import ModelConfig

Settings = Mapping[str, Any]
"""The content of a `config.json`."""
Names = Mapping[str, str | tuple[str, ...]]
"""Our module, or one parameter, to theirs; several are joined along their first axis, as our query, key and value."""

ACTIVATIONS: Mapping[str, str] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "squared_relu",
    "quick_gelu": "quick_gelu",
}
"""transformers' words for feed-forwards of two projections, to ours."""
NOTHING = r"(?!)"
"""The pattern that no name fits."""

_BLOCK = re.compile(r"\bblocks\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Head:
    """One architecture: a model class of ours and what its modules are called."""

    architecture: str
    model: type[nn.Module]
    names: Names
    unused: str = NOTHING
    """Pattern of tensors of other heads that its files may carry."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One model type."""

    model_type: str
    heads: tuple[Head, ...]
    read: Callable[[Settings], dict[str, Any]]
    """Raises ModelError at a setting that we do not have; the next layout of the same architecture is asked then."""
    write: Callable[[ModelConfig], dict[str, Any]]
    prefix: str
    """Of the trunk's tensors; files of a trunk alone leave it out, and some files of a whole model too."""
    transposed: tuple[str, ...] = ()
    """Our modules, by their last two names, whose matrices they keep transposed (GPT's Conv1D)."""
    copies: Mapping[str, str] = field(default_factory=dict)
    """Tensors that some programs store twice: the second name to the first; dropped if equal."""
    ignored: str = NOTHING
    """Pattern of tensors that hold no weights, such as masks."""


@dataclass(frozen=True, slots=True)
class Stored:
    """How one parameter lies in the file: joined from pieces along its first axis, each perhaps transposed."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    """Rows of each piece; none where pieces are stacked, as experts are."""
    transposed: bool

    def take_apart(self, tensor: Tensor) -> dict[str, Tensor]:
        """Return the pieces by name, uncopied."""
        turned = [piece.t() if self.transposed else piece for piece in self._pieces(tensor)]
        return dict(zip(self.names, turned, strict=True))

    def shapes(self, parameter: Tensor) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield each piece's name and the shape that it must have in the file, for a parameter on any device."""
        for name, piece in zip(self.names, self._pieces(parameter), strict=True):
            yield name, tuple(piece.t().shape if self.transposed else piece.shape)

    def put_together(self, read: Callable[[str], Tensor], into: Tensor) -> None:
        """Fill `into` piece by piece; each has the shape that `shapes` says."""
        for name, place in zip(self.names, self._pieces(into), strict=True):
            piece = read(name)
            place.copy_(piece.t() if self.transposed else piece)

    def _pieces(self, tensor: Tensor) -> Sequence[Tensor]:
        return torch.split(tensor, list(self.sizes)) if self.sizes else tensor.unbind()


def stored_parameters(model: nn.Module, layout: Layout, head: Head) -> Iterator[tuple[str, Stored]]:
    """Yield each parameter's name and how it is stored; those without a name of theirs are left out."""
    for name, parameter in model.named_parameters():
        module, _, part = name.rpartition(".")
        block = _BLOCK.search(module)
        theirs = head.names.get(_BLOCK.sub("blocks.*.", module))
        starred = _BLOCK.sub("blocks.*.", name)
        if starred in head.names:
            theirs, part = head.names[starred], ""
        if theirs is None:
            continue
        pieces = (theirs,) if isinstance(theirs, str) else theirs
        layer = block[1] if block else "*"
        names = tuple(f"{piece}.{part}".rstrip(".").replace("*", layer) for piece in pieces)
        if parameter.dim() == 3:
            names = tuple(names[0].replace("#", str(expert)) for expert in range(len(parameter)))
            yield name, Stored(names, sizes=(), transposed=not name.endswith(".down"))
            continue
        sizes = _piece_sizes(model, module, len(pieces)) or (parameter.shape[0],)
        yield name, Stored(names, sizes, transposed=parameter.dim() == 2 and module.endswith(layout.transposed))


def _piece_sizes(model: nn.Module, module: str, num_pieces: int) -> tuple[int, ...]:
    """Return the rows of queries, keys and values; the last two are alike."""
    if num_pieces == 1:
        return ()
    attention = model.get_submodule(module.rpartition(".")[0])
    config: ModelConfig = attention.config  # type: ignore[assignment]
    rows = (config.num_heads, config.num_kv_heads, config.num_kv_heads)
    return tuple(count * config.head_width for count in rows[-num_pieces:])


def under(ours: str, theirs: str, names: Names) -> dict[str, str | tuple[str, ...]]:
    """Return the names with a prefix on either side."""

    def prefixed(name: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return theirs + name if isinstance(name, str) else tuple(theirs + piece for piece in name)

    return {ours + name: prefixed(value) for name, value in names.items()}


def require(settings: Settings, wanted: Mapping[str, Any]) -> None:
    """Refuse settings that would change the numbers in silence; an absent key has the wanted value.

    Raises:
        ModelError: one differs.
    """
    for key, value in wanted.items():
        if settings.get(key, value) != value:
            raise ModelError(f"{key} is {settings[key]!r}, only {value!r} is supported")


def choose(settings: Settings, key: str, choices: Mapping[Any, Any], default: str | int) -> Any:
    """Return what a setting's word means in ours.

    Raises:
        ModelError: the word is not known.
    """
    word = settings.get(key, default)
    if word not in choices:
        known = ", ".join(map(repr, choices))
        raise ModelError(f"{key} is {word!r}, only {known} {'are' if len(choices) > 1 else 'is'} supported")
    return choices[word]


def word_for(choices: Mapping[Any, Any], value: object) -> Any:
    """Return the first word that means `value`, or one that nobody reads back."""
    return next((word for word, meaning in choices.items() if meaning == value), "unknown")


def biases(*, qkv: bool, out: bool, feed_forward: bool) -> dict[str, Any]:
    """Return our two fields on biases."""
    places = tuple(name for name, given in (("qkv", qkv), ("out", out), ("feed_forward", feed_forward)) if given)
    return {"bias": True, "bias_places": places} if places else {"bias": False}


def effective_fields(config: ModelConfig) -> dict[str, Any]:
    """Return the fields that change a model's numbers, equal for two shapes that compute the same.

    Which tokens find no place at an expert is left to each program: stock ones have rules of their own.
    """
    fields = config.model_dump(exclude={"initial_std", "distinct_layers", "embedding_width"})
    fields["num_distinct"], fields["embedding_size"] = config.num_distinct, config.embedding_size
    fields["masks"] = tuple(config.mask_of(layer) for layer in range(config.num_layers))
    without_effect: list[str] = []
    if config.encoder_layers:
        fields["encoder"] = effective_fields(config.encoder())
    else:
        without_effect += ["start_token"]
    if "banded" not in fields["masks"]:
        without_effect += ["band_width"]
    if config.positions != "rotary":
        without_effect += ["rope_theta", "rope_scaling"]
    elif config.rope_scaling.kind == "none":
        without_effect += ["rope_scaling"]
    if config.positions != "relative":
        without_effect += ["relative_buckets", "relative_distance"]
    else:
        without_effect += ["max_positions"]
    if not config.bias:
        without_effect += ["bias_places"]
    if config.sparse_layers == "none":
        without_effect += ["experts"]
    else:
        gates = {"num_experts", "top_k", "normalised_gates", "router_precision"}
        fields["experts"] = config.experts.model_dump(include=gates)
    return {name: value for name, value in fields.items() if name not in without_effect}
