"""What stands beside `tokenizer.json` in a folder from elsewhere: special tokens by their use, the chat template."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sanbai.foundation.errors import ArtifactError, DataError
from sanbai.foundation.files import read_json

CONFIGURATION = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
TEMPLATE = "chat_template.jinja"
_TEMPLATE_BEFORE_2025 = "chat_template.json"
GENERATION = "generation_config.json"
FILES = ("tokenizer.json", CONFIGURATION, SPECIAL_TOKENS, TEMPLATE, _TEMPLATE_BEFORE_2025, GENERATION)
"""All that `Tokenizer.load` reads."""
_USES = ("bos_token", "eos_token", "pad_token", "cls_token", "sep_token", "unk_token", "mask_token")


@dataclass(frozen=True, slots=True)
class Companions:
    """The content of a folder's files on special tokens and conversations; of a folder without them, nothing."""

    configuration: Mapping[str, Any] = field(default_factory=dict)
    """`tokenizer_config.json` without its template."""
    special_tokens: Mapping[str, Any] = field(default_factory=dict)
    """`special_tokens_map.json`."""
    template: str = ""
    """The chat template, wherever it was; empty where there is none."""
    end_ids: tuple[int, ...] = ()
    """Ids that end an answer, as `generation_config.json` has it."""

    @property
    def tokens(self) -> dict[str, str]:
        """Return the special tokens by their use: `bos_token`, `eos_token`, ..."""
        named = {**self.special_tokens, **self.configuration}
        found = {use: named[use] for use in _USES if named.get(use)}
        return {use: token["content"] if isinstance(token, dict) else str(token) for use, token in found.items()}

    @classmethod
    def read(cls, folder: Path) -> Companions:
        """Read what is there.

        Raises:
            ArtifactError: a file is not what its name says.
        """
        configuration, special_tokens, generation = (
            _read_object(folder / name) for name in (CONFIGURATION, SPECIAL_TOKENS, GENERATION)
        )
        template = configuration.pop("chat_template", None)
        old = _read_object(folder / _TEMPLATE_BEFORE_2025).get("chat_template")
        if (folder / TEMPLATE).is_file():
            template = (folder / TEMPLATE).read_text(encoding="utf-8")
        if isinstance(template, list):  # several by name; the plain one is called default
            template = next((each.get("template") for each in template if each.get("name") == "default"), None)
        ends = generation.get("eos_token_id")
        return cls(
            configuration,
            special_tokens,
            str(template or old or ""),
            tuple(ends) if isinstance(ends, list) else () if ends is None else (int(ends),),
        )


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = read_json(path)
    except DataError as error:
        raise ArtifactError(str(error)) from None
    if not isinstance(found, dict):
        raise ArtifactError(f"{path}: found {type(found).__name__}, wanted a JSON object")
    return found


def first_special(tokens: Iterable[str | None], special: Mapping[str, int]) -> str | None:
    """Return the first of some tokens that is among the special ones."""
    return next((token for token in tokens if token is not None and token in special), None)


def turns_template(begin: str, end: str) -> str:
    """Return the chat template that a model without one gets: each turn is closed by the token that ends its texts.

    begin ( <|role|> newline content end newline )*  [ <|assistant|> newline ]
    """
    return (
        f"{{{{- {json.dumps(begin, ensure_ascii=False)} -}}}}"
        "{%- for message in messages -%}"
        "{%- set role = 'system' if message['role'] == 'developer' else message['role'] -%}"
        "{%- if role not in ['system', 'user', 'assistant', 'tool'] -%}"
        "{{- raise_exception('unknown role ' + role) -}}"
        "{%- endif -%}"
        f"{{{{- '<|' + role + '|>\\n' + message['content'] + {json.dumps(end, ensure_ascii=False)} + '\\n' -}}}}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}"
    )
