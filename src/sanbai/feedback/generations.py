"""Generations: how an answer came about. It is begun with a row, grows by pieces, and ends as a message.

The id of the message to be is fixed at the beginning, so that readers can hold on to it. If the process dies between,
`recover` turns what had been written into an interrupted message at the next start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from sqlalchemy import Connection, delete, select

from sanbai.feedback import schema
from sanbai.feedback.accounts import Account
from sanbai.feedback.conversations import Message, check_owner, insert_message
from sanbai.feedback.identifiers import new_id, now_ms
from sanbai.feedback.store import Store
from sanbai.foundation.errors import UnknownNameError

State = Literal["running", "done", "stopped", "interrupted", "failed"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of a model: enough to do it again."""

    model: str
    sampling: Mapping[str, Any]
    seed: int
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Ending:
    """How a generation came to its end."""

    state: State
    finish_reason: str  # stop, length; empty where neither happened
    completion_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer in the making or made; `ending` is None while it runs."""

    id: str
    parent_id: str
    message_id: str
    draft_pair_id: str  # empty where it stands alone
    position: int
    plan: Plan
    ending: Ending | None

    @property
    def state(self) -> State:
        """Where it stands."""
        return "running" if self.ending is None else self.ending.state


def begin_generations(
    store: Store, parent: Message, plans: Sequence[Plan], *, drafts: bool = False
) -> list[Generation]:
    """Write down that answers to a message are being made.

    Args:
        store: the store.
        parent: the message they answer.
        plans: one for each.
        drafts: they are drafts to choose from, a pair of its own.
    """
    pair = new_id() if drafts else ""
    begun = [Generation(new_id(), parent.id, new_id(), pair, place, plan, None) for place, plan in enumerate(plans)]
    with store.write() as connection:
        if pair:
            connection.execute(schema.draft_pair.insert().values(id=pair, parent_id=parent.id, created=now_ms()))
        for one in begun:
            connection.execute(
                schema.generation.insert().values(
                    id=one.id,
                    parent_id=one.parent_id,
                    message_id=one.message_id,
                    draft_pair_id=pair or None,
                    position=one.position,
                    model=one.plan.model,
                    sampling=dict(one.plan.sampling),
                    seed=one.plan.seed,
                    prompt_tokens=one.plan.prompt_tokens,
                    created=now_ms(),
                )
            )
    return begun


def append_piece(store: Store, generation: Generation, seq: int, text: str) -> None:
    """Keep some of a growing answer, so that a killed server loses little of it.

    Args:
        store: the store.
        generation: the one that runs.
        seq: 0, 1, 2 ... within the generation.
        text: what was added since the piece before.
    """
    with store.write() as connection:
        if _conversation_lives(connection, generation):
            connection.execute(schema.generation_piece.insert().values(generation_id=generation.id, seq=seq, text=text))


def end_generation(store: Store, generation: Generation, text: str, ending: Ending) -> None:
    """Write the whole answer as a message and drop its pieces; of a deleted conversation only that it ended."""
    with store.write() as connection:
        _end(connection, generation, text, ending)


def recover_generations(store: Store) -> int:
    """End what an earlier process left running, with the text it had kept; returns how many there were."""
    piece = schema.generation_piece
    with store.write() as connection:
        ended = select(schema.generation_end.c.generation_id)
        left = _select(connection, schema.generation.c.id.not_in(ended))
        for one in left:
            rows = connection.execute(select(piece.c.text).where(piece.c.generation_id == one.id).order_by(piece.c.seq))
            _end(connection, one, "".join(row.text for row in rows), Ending("interrupted", "", 0, 0.0))
    return len(left)


def find_generation(store: Store, owner: Account, generation_id: str) -> Generation:
    """Return one generation of an account's conversations.

    Raises:
        UnknownNameError: there is none.
    """
    with store.read() as connection:
        found = _select(connection, schema.generation.c.id == generation_id)
        if not found:
            raise UnknownNameError(f"{generation_id}: no such generation")
        table = schema.message
        conversation = connection.execute(
            select(table.c.conversation_id).where(table.c.id == found[0].parent_id)
        ).scalar_one()
        try:
            check_owner(connection, owner, conversation)
        except UnknownNameError:
            raise UnknownNameError(f"{generation_id}: no such generation") from None
        return found[0]


def list_generations(store: Store, owner: Account, conversation_id: str) -> list[Generation]:
    """Return all generations of a conversation, oldest first.

    Raises:
        UnknownNameError: the conversation is not the account's.
    """
    table = schema.message
    with store.read() as connection:
        check_owner(connection, owner, conversation_id)
        messages = select(table.c.id).where(table.c.conversation_id == conversation_id)
        return _select(connection, schema.generation.c.parent_id.in_(messages))


def generation_of(connection: Connection, message_id: str) -> Generation | None:
    """Return the generation that made a message; None for what a person wrote."""
    found = _select(connection, schema.generation.c.message_id == message_id)
    return found[0] if found else None


def _end(connection: Connection, generation: Generation, text: str, ending: Ending) -> None:
    message, piece = schema.message, schema.generation_piece
    conversation_id = connection.execute(
        select(message.c.conversation_id).where(message.c.id == generation.parent_id)
    ).scalar_one()
    kept = text if _conversation_lives(connection, generation) else ""
    insert_message(connection, Message(generation.message_id, conversation_id, generation.parent_id, "assistant", kept))
    connection.execute(
        schema.generation_end.insert().values(
            generation_id=generation.id,
            state=ending.state,
            finish_reason=ending.finish_reason,
            completion_tokens=ending.completion_tokens,
            seconds=ending.seconds,
            created=now_ms(),
        )
    )
    connection.execute(delete(piece).where(piece.c.generation_id == generation.id))


def _conversation_lives(connection: Connection, generation: Generation) -> bool:
    gone = schema.conversation_deleted
    row = connection.execute(
        select(gone.c.conversation_id)
        .join(schema.message, schema.message.c.conversation_id == gone.c.conversation_id)
        .where(schema.message.c.id == generation.parent_id)
    ).first()
    return row is None


def _select(connection: Connection, condition: Any) -> list[Generation]:
    table, end = schema.generation, schema.generation_end
    rows = connection.execute(
        select(table, end.c.state, end.c.finish_reason, end.c.completion_tokens, end.c.seconds)
        .outerjoin(end, end.c.generation_id == table.c.id)
        .where(condition)
        .order_by(table.c.id)
    )
    return [
        Generation(
            row.id,
            row.parent_id,
            row.message_id,
            row.draft_pair_id or "",
            row.position,
            Plan(row.model, row.sampling, row.seed, row.prompt_tokens),
            None
            if row.state is None
            else Ending(cast("State", row.state), row.finish_reason, row.completion_tokens, row.seconds),
        )
        for row in rows
    ]
