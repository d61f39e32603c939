"""Snapshots: everything that people said and agreed to give, frozen for a round; and the way back from a model to it.

A snapshot is canonical: rows sorted, ids made of content and names, no times, no database ids. The same feedback given
again in another order, at another hour, gives the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, exists, select

from sanbai.feedback import schema
from sanbai.feedback.accounts import MODEL_PREFIX
from sanbai.feedback.consent import consenting_accounts
from sanbai.feedback.conversations import Message, lineage, message_of_row
from sanbai.feedback.identifiers import content_id
from sanbai.feedback.labels import newest_rankings
from sanbai.feedback.store import Store
from sanbai.feedback.tasks import task_of_row

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """A row of the store that entered a snapshot: from which table, and whose."""

    source: str
    row_id: str
    account_id: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Plain records, ready to be written as JSON Lines; see `freeze` for what each holds."""

    rankings: list[Record]
    thumbs: list[Record]
    draft_choices: list[Record]
    conversations: list[Record]
    demonstrations: list[Record]
    items: list[Item]


def freeze(store: Store, *, up_to_round: int) -> Snapshot:
    """Collect what consenting accounts said, deleted conversations left out; of changes of mind the newest.

    rankings: `{"id","messages","responses","buckets","labeler","ratings","kind","round","source"}`, rankable ones only;
    `ratings` is empty unless every answer was rated.
    thumbs: `{"id","messages","response","value","finished","reason","comment","labeler","model","round","source"}`;
    `finished` where the answer ended by itself.
    draft_choices: `{"id","messages","responses","choice","labeler","models","round","source"}`.
    conversations: `{"id","messages","source","labeler"}`, each path from a beginning to a last, whole answer.
    demonstrations: `{"id","messages","source","labeler","round"}`.

    Args:
        store: the store.
        up_to_round: rows of later rounds are left out.
    """
    with store.read() as connection:
        accounts = {row.id: row for row in connection.execute(select(schema.account))}
        givers = {one: accounts[one] for one in consenting_accounts(connection)}
        trees = _trees(connection, givers)
        models = {row.name: row.round for row in connection.execute(select(schema.model.c.name, schema.model.c.round))}
        generations = {
            row.message_id: row
            for row in connection.execute(_ended_generations())
            if models.get(row.model, 0) <= up_to_round
        }
        rounds = {message_id: models.get(row.model, 0) for message_id, row in generations.items()}
        items: list[Item] = []
        rankings = _rankings(connection, givers, up_to_round, items)
        thumbs = _thumbs(connection, givers, trees, generations, rounds, items)
        choices = _draft_choices(connection, givers, trees, generations, rounds, items)
        talks = _conversations(connection, givers, trees, generations, items)
        shown = _demonstrations(connection, givers, up_to_round, items)
    return Snapshot(
        _canonical(rankings), _canonical(thumbs), _canonical(choices), _canonical(talks), _canonical(shown),
        sorted(items, key=lambda item: (item.source, item.row_id)),
    )  # fmt: skip


def record_snapshot(store: Store, artifact: str, snapshot: Snapshot) -> None:
    """Remember which rows entered a snapshot's artifact; doing it twice does nothing."""
    table = schema.snapshot_item
    with store.write() as connection:
        if connection.execute(select(table.c.snapshot).where(table.c.snapshot == artifact).limit(1)).first():
            return
        rows = [
            {"snapshot": artifact, "source": item.source, "row_id": item.row_id, "account_id": item.account_id}
            for item in snapshot.items
        ]
        if rows:
            connection.execute(table.insert(), rows)


def snapshot_items(store: Store, artifact: str) -> list[Item]:
    """Return the rows that entered a snapshot's artifact."""
    table = schema.snapshot_item
    query = select(table).where(table.c.snapshot == artifact).order_by(table.c.source, table.c.row_id)
    with store.read() as connection:
        return [Item(row.source, row.row_id, row.account_id) for row in connection.execute(query)]


def count_items(store: Store, items: Iterable[Item]) -> dict[str, Any]:
    """Count a snapshot's rows as people ask of them.

    Returns:
        `{"rankings": {"person", "simulated", "model"}, "thumbs": {"up", "down"}, "draft_choices", "conversations",
        "demonstrations"}`.
    """
    with store.read() as connection:
        source_of = {row.id: row.source for row in connection.execute(select(schema.account))}
        value_of = {row.id: row.value for row in connection.execute(select(schema.thumb.c.id, schema.thumb.c.value))}
    counts: Counter[str] = Counter()
    for item in items:
        if item.source == "ranking":
            counts[source_of[item.account_id]] += 1
        elif item.source == "thumb":
            counts["up" if value_of[item.row_id] > 0 else "down"] += 1
        else:
            counts[item.source] += 1
    return {
        "rankings": {source: counts[source] for source in ("person", "simulated", "model")},
        "thumbs": {"up": counts["up"], "down": counts["down"]},
        "draft_choices": counts["draft_choice"],
        "conversations": counts["conversation"],
        "demonstrations": counts["demonstration"],
    }


def labels_of(store: Store, model: str) -> list[Item]:
    """Return every row that shaped a model, through its own snapshots and its ancestors'."""
    ancestors = (
        select(schema.model.c.name, schema.model.c.parent).where(schema.model.c.name == model).cte(recursive=True)
    )
    parents = select(schema.model.c.name, schema.model.c.parent).join(
        ancestors, schema.model.c.name == ancestors.c.parent
    )
    ancestors = ancestors.union_all(parents)
    item, used = schema.snapshot_item, schema.model_input
    query = (
        select(item.c.source, item.c.row_id, item.c.account_id)
        .join(used, used.c.snapshot == item.c.snapshot)
        .join(ancestors, ancestors.c.name == used.c.model)
        .distinct()
        .order_by(item.c.source, item.c.row_id)
    )
    with store.read() as connection:
        return [Item(row.source, row.row_id, row.account_id) for row in connection.execute(query)]


def models_touched_by(store: Store, account_id: str) -> list[str]:
    """Return the models that must be made again if an account withdraws, by name.

    Descendants are among them, and the pupils of a reward model that ranked in people's place.
    """
    touched: set[str] = set()
    waiting = [account_id]
    while waiting:
        with store.read() as connection:
            new = _trained_on(connection, waiting.pop()) - touched
            artifacts = select(schema.model.c.artifact).where(schema.model.c.name.in_(new))
            teachers = [f"{MODEL_PREFIX}{name}" for name in connection.execute(artifacts).scalars()]
            accounts = select(schema.account.c.id).where(schema.account.c.name.in_(teachers))
            waiting += connection.execute(accounts).scalars()
        touched |= new
    return sorted(touched)


def _trained_on(connection: Connection, account_id: str) -> set[str]:
    """Return the models that an account's rows shaped, descendants included."""
    item, used, model = schema.snapshot_item, schema.model_input, schema.model
    touched = (
        select(used.c.model.label("name"))
        .join(item, item.c.snapshot == used.c.snapshot)
        .where(item.c.account_id == account_id)
        .cte(recursive=True)
    )
    touched = touched.union(select(model.c.name).join(touched, model.c.parent == touched.c.name))
    return set(connection.execute(select(touched.c.name)).scalars())


def _rankings(connection: Connection, givers: dict[str, Any], up_to: int, items: list[Item]) -> list[Record]:
    task, rating, gone = schema.label_task, schema.rating, schema.conversation_deleted
    deleted = exists().where(gone.c.conversation_id == task.c.conversation_id)
    owners = {row.id: row.owner_id for row in connection.execute(select(schema.conversation))}
    tasks = {
        row.id: task_of_row(row)
        for row in connection.execute(select(task).where(task.c.round <= up_to, ~deleted))
        if row.conversation_id is None or owners[row.conversation_id] in givers
    }
    ratings: dict[str, dict[int, Record]] = {}
    for row in connection.execute(select(rating)):
        said = {"likert": row.likert, "flags": row.flags, "note": row.note}
        ratings.setdefault(row.ranking_id, {})[row.position] = said
    records = []
    for row in newest_rankings(connection, schema.ranking.c.account_id.in_(list(givers))):
        if row.task_id not in tasks or row.not_rankable:
            continue
        asked, labeler = tasks[row.task_id], givers[row.account_id]
        said_of = ratings.get(row.id, {})
        complete = [said_of[place] for place in range(len(asked.responses)) if said_of.get(place, {}).get("likert")]
        records.append(
            {
                "id": f"{row.task_id}:{labeler.name}",
                "messages": [dict(message) for message in asked.messages],
                "responses": list(asked.responses),
                "buckets": row.buckets,
                "labeler": labeler.name,
                "ratings": complete if len(complete) == len(asked.responses) else [],
                "kind": asked.prompt_kind,
                "round": asked.round,
                "source": labeler.source,
            }
        )
        items.append(Item("ranking", row.id, row.account_id))
    return records


def _thumbs(
    connection: Connection,
    givers: dict[str, Any],
    trees: dict[str, Message],
    generations: dict[str, Row[Any]],
    rounds: dict[str, int],
    items: list[Item],
) -> list[Record]:
    newest: dict[tuple[str, str], Row[Any]] = {}
    for row in connection.execute(select(schema.thumb).order_by(schema.thumb.c.id)):
        newest[row.message_id, row.account_id] = row
    records = []
    for row in newest.values():
        if row.account_id not in givers or row.message_id not in trees or row.message_id not in generations:
            continue
        labeler = givers[row.account_id]
        *prompt, response = _turns(trees, row.message_id)
        records.append(
            {
                "messages": prompt,
                "response": response["content"],
                "value": row.value,
                "finished": generations[row.message_id].finish_reason == "stop",
                "reason": row.reason,
                "comment": row.comment,
                "labeler": labeler.name,
                "model": generations[row.message_id].model,
                "round": rounds[row.message_id],
                "source": labeler.source,
            }
        )
        items.append(Item("thumb", row.id, row.account_id))
    return records


def _draft_choices(
    connection: Connection,
    givers: dict[str, Any],
    trees: dict[str, Message],
    generations: dict[str, Row[Any]],
    rounds: dict[str, int],
    items: list[Item],
) -> list[Record]:
    pairs: dict[str, list[Row[Any]]] = {}
    for row in sorted(generations.values(), key=lambda row: row.position):
        if row.draft_pair_id:
            pairs.setdefault(row.draft_pair_id, []).append(row)
    newest: dict[tuple[str, str], Row[Any]] = {}
    for row in connection.execute(select(schema.draft_choice).order_by(schema.draft_choice.c.id)):
        newest[row.draft_pair_id, row.account_id] = row
    records = []
    for row in newest.values():
        drafts = [draft for draft in pairs.get(row.draft_pair_id, []) if draft.message_id in trees]
        if row.account_id not in givers or len(drafts) != 2:
            continue
        labeler = givers[row.account_id]
        records.append(
            {
                "messages": _turns(trees, drafts[0].parent_id),
                "responses": [trees[draft.message_id].content for draft in drafts],
                "choice": row.choice,
                "labeler": labeler.name,
                "models": [draft.model for draft in drafts],
                "round": max(rounds[draft.message_id] for draft in drafts),
                "source": labeler.source,
            }
        )
        items.append(Item("draft_choice", row.id, row.account_id))
    return records


def _conversations(
    connection: Connection,
    givers: dict[str, Any],
    trees: dict[str, Message],
    generations: dict[str, Row[Any]],
    items: list[Item],
) -> list[Record]:
    owners = {row.id: row.owner_id for row in connection.execute(select(schema.conversation))}
    answered = {message.parent_id for message in trees.values()}
    records, seen = [], set()
    for message in trees.values():
        if message.id in answered or message.id not in generations or generations[message.id].state != "done":
            continue
        owner = givers[owners[message.conversation_id]]
        records.append({"messages": _turns(trees, message.id), "source": owner.source, "labeler": owner.name})
        seen.add(message.conversation_id)
    items += [Item("conversation", one, owners[one]) for one in sorted(seen)]
    return records


def _demonstrations(connection: Connection, givers: dict[str, Any], up_to: int, items: list[Item]) -> list[Record]:
    table = schema.demonstration
    records = []
    for row in connection.execute(select(table).where(table.c.round <= up_to).order_by(table.c.id)):
        if row.account_id in givers:
            name = givers[row.account_id].name
            records.append({"messages": row.messages, "source": row.source, "labeler": name, "round": row.round})
            items.append(Item("demonstration", row.id, row.account_id))
    return records


def _ended_generations() -> Select[Any]:
    """Select the answers that a person has let end; what a failure or a restart cut short is nobody's words."""
    end = schema.generation_end
    joined = select(schema.generation, end.c.state, end.c.finish_reason).join(
        end, end.c.generation_id == schema.generation.c.id
    )
    return joined.where(end.c.state.in_(["done", "stopped"]))


def _trees(connection: Connection, givers: dict[str, Any]) -> dict[str, Message]:
    """Return every message of every living conversation of those who consent."""
    conversation, message, gone = schema.conversation, schema.message, schema.conversation_deleted
    rows = connection.execute(
        select(message)
        .join(conversation, conversation.c.id == message.c.conversation_id)
        .where(conversation.c.owner_id.in_(list(givers)))
        .where(~exists().where(gone.c.conversation_id == conversation.c.id))
        .order_by(message.c.id)
    )
    return {row.id: message_of_row(row) for row in rows}


def _turns(trees: dict[str, Message], message_id: str) -> list[dict[str, str]]:
    return [{"role": one.role, "content": one.content} for one in lineage(trees, message_id)]


def _canonical(records: Iterable[Record]) -> list[Record]:
    """Name records by their content where they have no id, and sort them.

    What was said twice in the same words counts once, so that a round which was killed and asked its labelers again
    freezes the same snapshot.
    """
    named = {}
    for record in records:
        identity = str(record["id"]) if "id" in record else content_id(record)
        named[identity] = {"id": identity, **{key: value for key, value in record.items() if key != "id"}}
    return [named[identity] for identity in sorted(named)]
