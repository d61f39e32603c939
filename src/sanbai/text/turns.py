"""What stands around the messages of a conversation, as token ids: one value for our template and for any other.

opening ( before[role] content after[role] )*  [ answer ]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sanbai.foundation.errors import DataError
from sanbai.text.chat_markup import canonical_role

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Turns:
    """The pieces of a chat template; a role that it does not have is in neither mapping."""

    opening: Ids
    """Before a conversation; some templates put a system message of their own here."""
    system_opening: Ids
    """Instead, before a conversation that begins with a system message."""
    before: Mapping[str, Ids]
    """Role -> what opens its message."""
    after: Mapping[str, Ids]
    """Role -> what ends its message; the assistant's holds the id that ends an answer."""
    answer: Ids
    """Asks for the assistant's message."""
    call: Ids = ()
    """Before each tool call within the assistant's message; empty where the template has no place for one."""

    def start(self, role: str) -> Ids:
        """Return what stands before a conversation whose first message is this role's."""
        return self.system_opening if canonical_role(role) == "system" else self.opening

    def around(self, role: str) -> tuple[Ids, Ids]:
        """Return what stands before and after a message.

        Raises:
            DataError: no such role, or none in this template.
        """
        name = canonical_role(role)
        if name not in self.before:
            raise DataError(f"the model's chat template has no role {name!r}; it has {', '.join(self.before)}")
        return self.before[name], self.after[name]

    @property
    def longest_start(self) -> int:
        """Tokens of the longer opening."""
        return max(len(self.opening), len(self.system_opening))

    @property
    def smallest_prompt(self) -> int:
        """Tokens within which every prompt can be cut: both ends, and one token of the last message."""
        message = max(len(self.before[role]) + len(self.after[role]) for role in self.before)
        return self.longest_start + message + 1 + len(self.answer)

    @classmethod
    def of_markers(cls, ids: Mapping[str, int], roles: Sequence[str]) -> Turns:
        """Return the turns of our own template; `ids` by the names of `reserved.MARKERS`."""
        return cls(
            opening=(ids["end_of_text"],),
            system_opening=(ids["end_of_text"],),
            before={role: (ids[role],) for role in roles},
            after=dict.fromkeys(roles, (ids["end"],)),
            answer=(ids["assistant"],),
            call=(ids["tool"],),
        )
