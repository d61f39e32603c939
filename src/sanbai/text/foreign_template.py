"""A chat template from elsewhere, cut into what stands around each message.

Hugging Face folders bring a Jinja text that turns a whole conversation into one string. Encoding that string would let
a message speak for another role: its markers are found in contents too. So the template is rendered once, with a word
for each content, and cut at those words; what is left between them is encoded with special tokens, contents without.

A template is taken only if a special token stands between any two contents, so that no text can end its own turn, and
if the pieces put together give what the template gives. Templates that move or change contents are not.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sanbai.text.chat_markup import ROLES, Message

#: Contents to cut at: words that no template writes, in the order in which they are given.
_WORDS = ("zqfirstqz", "zqsecondqz", "zqthirdqz", "zqfourthqz")
_TAGS = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")


@dataclass(frozen=True, slots=True)
class Pieces:
    """The texts of `turns.Turns`."""

    opening: str
    system_opening: str
    before: Mapping[str, str]
    after: Mapping[str, str]
    answer: str

    def are_closed(self, special: Sequence[str]) -> bool:
        """Return whether a special token ends every answer and stands between any two contents."""

        def marked(text: str) -> bool:
            return any(token in text for token in special)

        opened = all(map(marked, [*self.before.values(), self.answer]))
        return marked(self.after["assistant"]) and (opened or all(map(marked, self.after.values())))

    def join(self, messages: Sequence[Message]) -> list[tuple[str, bool]]:
        """Return the parts of a prompt in order, each with whether it is a content."""
        opening = self.system_opening if messages[0]["role"] == "system" else self.opening
        parts = [(opening, False)]
        for message in messages:
            role = message["role"]
            parts += [(self.before[role], False), (message["content"], True), (self.after[role], False)]
        return [*parts, (self.answer, False)]


class Template:
    """A Jinja template as transformers runs it, in a sandbox."""

    def __init__(self, text: str, tokens: Mapping[str, str]) -> None:
        """Compile it.

        Args:
            text: of the template.
            tokens: `bos_token`, `eos_token` and the like, which it may name.

        Raises:
            ValueError: it is not Jinja.
        """
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _refuse
        environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
        try:
            self._template = environment.from_string(_TAGS.sub("", text))
        except TemplateError as error:
            raise ValueError(str(error)) from None
        self.tokens = dict(tokens)

    def render(self, messages: Sequence[Message], *, wait: bool) -> str:
        """Return a conversation as text.

        Raises:
            ValueError: the template refuses it.
        """
        values: dict[str, Any] = {"messages": messages, "add_generation_prompt": wait, "tools": None, "documents": None}
        try:
            return self._template.render(**self.tokens, **values)
        except Exception as error:  # noqa: BLE001 - a template is a program of somebody else's
            raise ValueError(str(error)) from None


def cut(template: Template) -> Pieces | None:
    """Return the pieces, or None where the template moves or changes contents, or knows no assistant."""
    try:
        return _cut(template)
    except ValueError:
        return None


def _cut(template: Template) -> Pieces:
    talk = ("user", "assistant", "user")
    to_user, user_to_assistant, assistant_to_user, to_answer = _between(template, talk, wait=True)
    after_user = _between(template, talk, wait=False)[-1]
    after_assistant = _between(template, talk[:2], wait=False)[-1]
    before_user = assistant_to_user.removeprefix(after_assistant)
    before = {"user": before_user, "assistant": _without_prefix(user_to_assistant, after_user)}
    after = {"user": after_user, "assistant": _without_suffix(assistant_to_user, before_user)}
    opening, system_opening = _without_suffix(to_user, before_user), ""
    with contextlib.suppress(ValueError):
        to_system, system_to_user, _ = _between(template, ("system", "user"), wait=False)
        after_system = _without_suffix(system_to_user, before_user)
        beginnings = (opening, template.tokens.get("bos_token", ""), "")
        system_opening = next(each for each in beginnings if to_system.startswith(each))
        before["system"], after["system"] = to_system.removeprefix(system_opening), after_system
    with contextlib.suppress(ValueError):
        *_, to_tool, tool_to_user, _ = _between(template, ("user", "assistant", "tool", "user"), wait=False)
        after_tool = _without_suffix(tool_to_user, before_user)
        before["tool"], after["tool"] = _without_prefix(to_tool, after["assistant"]), after_tool
    roles = [role for role in ROLES if role in before]
    return Pieces(
        opening,
        system_opening,
        {role: before[role] for role in roles},
        {role: after[role] for role in roles},
        _without_prefix(to_answer, after_user),
    )


def _between(template: Template, roles: Sequence[str], *, wait: bool) -> list[str]:
    """Return what stands before, between and after one message of each role.

    Raises:
        ValueError: a content is missing, twice there, or in another place.
    """
    words = _WORDS[: len(roles)]
    messages = [{"role": role, "content": word} for role, word in zip(roles, words, strict=True)]
    found = re.split("|".join(words), text := template.render(messages, wait=wait))
    if re.findall("|".join(words), text) != list(words):
        raise ValueError("it moves contents")
    return found


def _without_prefix(text: str, prefix: str) -> str:
    if not text.startswith(prefix):
        raise ValueError("its pieces depend on their neighbours")
    return text[len(prefix) :]


def _without_suffix(text: str, suffix: str) -> str:
    if not text.endswith(suffix):
        raise ValueError("its pieces depend on their neighbours")
    return text[: len(text) - len(suffix)]


def _refuse(message: str) -> NoReturn:
    raise ValueError(message)
