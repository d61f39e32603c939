"""Who speaks, and the chat template as one Jinja text for programs that read Hugging Face folders.

The template and `chat_template.render` say the same thing; a test holds them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sanbai.foundation.errors import DataError

#: One turn as it comes from JSON: `role` and `content`.
Message = Mapping[str, str]
#: One that may hold `tool_calls` beside its content, as in OpenAI's API.
AnyMessage = Mapping[str, Any]

#: In order of privilege: a later role's text never overrides an earlier one's; tool output is data, never orders.
ROLES = ("system", "user", "assistant", "tool")

#: <|end_of_text|>, then for each message <|role|>content<|end|>, then <|assistant|> if an answer is wanted;
#: `tool_calls.py` says where tools and calls stand.
CHAT_TEMPLATE = (
    "{{- '<|end_of_text|>' -}}"
    "{%- if tools -%}"
    "{{- '<|system|>Tools:' -}}"
    "{%- for tool in tools -%}"
    "{{- '\\n' + ((tool['function'] or tool) | tojson(separators=(',', ':'))) -}}"
    "{%- endfor -%}"
    "{{- '<|end|>' -}}"
    "{%- endif -%}"
    "{%- for message in messages -%}"
    "{%- set role = 'system' if message['role'] == 'developer' else message['role'] -%}"
    "{%- if role not in ['system', 'user', 'assistant', 'tool'] -%}"
    "{{- raise_exception('unknown role ' + role) -}}"
    "{%- endif -%}"
    "{{- '<|' + role + '|>' + (message['content'] or '') -}}"
    "{%- for call in message['tool_calls'] or [] -%}"
    "{%- set arguments = call['function']['arguments'] -%}"
    "{{- '<|tool|>{\"name\":' + (call['function']['name'] | tojson) + ',\"arguments\":' -}}"
    "{{- arguments if arguments is string else (arguments | tojson(separators=(',', ':'))) -}}"
    "{{- '}' -}}"
    "{%- endfor -%}"
    "{{- '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def canonical_role(role: str) -> str:
    """Return the role that a name stands for: itself, or `system` for OpenAI's newer `developer`.

    Raises:
        DataError: no such role.
    """
    if role == "developer":
        return "system"
    if role not in ROLES:
        raise DataError(f"unknown role {role!r}; wanted one of {', '.join(ROLES)}")
    return role
