"""Models in Python: load one, call it, let it write, save it. `import sanbai` gives these names when they are used.

Shapes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import TypedDict, Unpack, overload

import torch
from torch import Tensor, nn

from sanbai.cli.stores import open_store, resolve_model
from sanbai.foundation.errors import ModelError, UnknownNameError, UsageError
from sanbai.foundation.files import explain_disk_errors
from sanbai.foundation.recipe import validate_recipe
from sanbai.foundation.workspace import Workspace
from sanbai.generation.answering import generate as generate_batch
from sanbai.generation.sampling import Sampling
from sanbai.generation.writer import Writer, encode_text
from sanbai.model.encoder_decoder import EncoderDecoder
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import Model, load_model, save_model
from sanbai.text.chat_markup import Message
from sanbai.text.chat_template import encode_prompt
from sanbai.text.tokenizer import Tokenizer

_FOLDER = "folder"


class Options(TypedDict, total=False):
    """How `generate` draws."""

    max_new_tokens: int
    """The answer ends here at the latest, or where the model's context ends; 128 if not given."""
    temperature: float
    """Logits are divided by it; 0 takes the likeliest token each time; 1 if not given."""
    top_p: float
    """Draw only from the likeliest tokens that together hold this probability; 1 if not given."""
    top_k: int
    """Draw only from this many likeliest tokens; all if not given."""
    seed: int
    """Of the draws; 1 if not given."""
    tokenizer: Tokenizer | None
    """That of the folder which the model came from, if not given; token ids need none."""


def load(path_or_name: str | Path, *, dtype: torch.dtype | None = None, workspace: str | Path = "workspace") -> Model:
    """Return a model in evaluation mode, on the CPU.

    Call it with int64 `tokens_BT`; it returns one tensor from the head that its folder has:

    - a language model, or a masked one: `logits_BTV`;
    - an encoder-decoder, called with `(tokens, decoder_tokens)`: `logits_BTV` of the decoder;
    - a classifier: `logits_BC` of the classes; a reward model: one number a position, `values_BT`;
    - without a head: the hidden vectors `hidden_BTD`.

    Padding is said by `segments_BT=`, 1 on tokens and 0 on padding, `segments_BM=` for an encoder's.

    Args:
        path_or_name: a folder in Hugging Face layout, which needs neither a tokenizer nor a manifest; or a model of the
            workspace by its registered name, its artifact's name, or `served`.
        dtype: of the parameters; that of the files if not given.
        workspace: where names are looked up.

    Raises:
        UnknownNameError: neither a folder nor a model's name.
        ModelError: unknown architecture or setting, a missing, surplus or misshapen tensor, a pickle.
    """
    folder = _find(path_or_name, workspace)
    model = load_model(folder, dtype=dtype)
    # Not a parameter, module or buffer: where `generate` and `save` find the tokenizer that belongs to the weights.
    object.__setattr__(model, _FOLDER, folder)
    return model


def load_tokenizer(path_or_name: str | Path, *, workspace: str | Path = "workspace") -> Tokenizer:
    """Return a folder's tokenizer; arguments as `load`.

    Raises:
        UnknownNameError: neither a folder nor a model's name.
        ArtifactError: there is no `tokenizer.json`, or it is damaged.
    """
    return Tokenizer.load(_find(path_or_name, workspace))


@overload
def generate(model: nn.Module, prompt: str | Sequence[Message], **options: Unpack[Options]) -> str: ...
@overload
def generate(model: nn.Module, prompt: Sequence[int] | Tensor, **options: Unpack[Options]) -> list[int]: ...
def generate(
    model: nn.Module, prompt: str | Sequence[Message] | Sequence[int] | Tensor, **options: Unpack[Options]
) -> str | list[int]:
    """Let a language model write on, or an encoder-decoder an answer; the same seed gives the same one.

    Args:
        model: of `load`; left as it is.
        prompt: a text to continue; or messages `{"role", "content"}` to answer, put into the model's chat template; or
            token ids, one sequence, to continue as they are. An encoder-decoder reads the text, its end marked, or the
            ids as they are; it knows no messages.
        **options: see `Options`.

    Returns:
        The new text; for token ids the new ids. What ended the answer is left out.

    Raises:
        ModelError: a model that writes nothing, messages for an encoder-decoder, or the prompt fills the context.
        DataError: an empty prompt, or an unknown role.
        UsageError: a text for a model without a tokenizer, an option that does not exist, or one out of its range.
    """
    if not isinstance(model, LanguageModel | EncoderDecoder):
        wanted = "a language model or an encoder-decoder"
        raise ModelError(f"a {type(model).__name__} does not write on from a prompt; wanted {wanted}")
    tokenizer = options.pop("tokenizer", None) or _tokenizer_of(model)
    seed = options.pop("seed", 1)
    sampling = validate_recipe(Sampling, dict(options), source="sanbai.generate")
    ids = _ids(prompt)
    if ids is None and tokenizer is None:
        raise UsageError("a text needs a tokenizer; load the model from a folder that has one, or give tokenizer=")
    prompt_ids = _encode(tokenizer, prompt, model) if ids is None else ids  # type: ignore[arg-type]
    stop_ids = frozenset[int]() if tokenizer is None else tokenizer.reserved.ends()
    answer = generate_batch(model, [prompt_ids], sampling, seeds=[seed], stop_ids=stop_ids)[0]
    new_ids = answer.tokens[:-1] if answer.finish_reason == "stop" else answer.tokens
    return new_ids if ids is not None or tokenizer is None else tokenizer.decode(new_ids)


def _ids(prompt: str | Sequence[Message] | Sequence[int] | Tensor) -> list[int] | None:
    """Return the token ids of a prompt that is given as such."""
    if isinstance(prompt, Tensor):
        if prompt.dim() != 1 and prompt.shape[:-1].numel() != 1:
            raise UsageError(f"a prompt of shape {list(prompt.shape)}; wanted one sequence of token ids")
        return [int(token) for token in prompt.flatten()]
    numbers = [int(token) for token in prompt if isinstance(token, Integral)]
    return numbers if len(numbers) == len(prompt) and not isinstance(prompt, str) else None


def _encode(tokenizer: Tokenizer, prompt: str | Sequence[Message], model: Writer) -> list[int]:
    if isinstance(prompt, str):
        return encode_text(tokenizer, prompt, model)
    if isinstance(model, EncoderDecoder):
        raise ModelError("an encoder-decoder reads one text and knows no turns; give it a text or token ids")
    return encode_prompt(tokenizer, prompt)


def save(model: Model, folder: str | Path, *, tokenizer: Tokenizer | None = None) -> None:
    """Write a model as a folder that transformers loads, with its tokenizer if it has one.

    Args:
        model: of `load`, or made from it.
        folder: made if need be; files of the same names are replaced.
        tokenizer: that of the folder which the model came from if not given.

    Raises:
        ModelError: no stock architecture has this shape.
        ResourceError: no space or no permission.
    """
    path = Path(folder)
    with explain_disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    save_model(model, path, tokenizer or _tokenizer_of(model))


def _find(path_or_name: str | Path, workspace: str | Path) -> Path:
    """Return the folder of a path, or of a name in a workspace."""
    if Path(path_or_name).is_dir():
        return Path(path_or_name)
    space = Workspace(Path(workspace))
    if not space.artifacts.is_dir():
        raise UnknownNameError(f"{path_or_name}: no such folder, and {workspace} is no workspace that could hold it")
    return resolve_model(open_store(space), space, str(path_or_name)).path


def _tokenizer_of(model: nn.Module) -> Tokenizer | None:
    """Return the tokenizer of the folder that a model was loaded from, if there is one."""
    folder: Path | None = getattr(model, _FOLDER, None)
    return Tokenizer.load(folder) if folder is not None and (folder / "tokenizer.json").is_file() else None
