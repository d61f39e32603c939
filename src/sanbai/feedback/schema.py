"""The tables. Rows are only appended.

A change of mind is a new row that names the one it supersedes; a state is the newest of its event rows; an end (a
revoked key, a closed session, a deleted conversation) is a row of its own. Two functions alone alter rows:
`conversations.delete_conversation` empties its texts, and `generations.end_generation` drops the pieces of an answer
once it is written whole.

Times are milliseconds since 1970, UTC. Lists and objects are JSON.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA_VERSION = 1

metadata = MetaData()


def _id() -> Column[str]:
    return Column("id", String(64), primary_key=True)


def _created() -> Column[int]:
    return Column("created", BigInteger, nullable=False)


def _reference(name: str, target: str, *, nullable: bool = False, primary_key: bool = False) -> Column[str]:
    index = not primary_key
    return Column(name, String(64), ForeignKey(target), nullable=nullable, primary_key=primary_key, index=index)


schema_version = Table("schema_version", metadata, Column("version", Integer, primary_key=True), _created())

# People, programs and what lets them in.
account = Table(
    "account",
    metadata,
    _id(),
    Column("name", String(80), nullable=False, unique=True),
    Column("role", String(16), nullable=False),  # admin, labeler, user
    Column("source", String(16), nullable=False),  # person, simulated, model
    _created(),
)
password = Table(
    "password",
    metadata,
    _id(),
    _reference("account_id", "account.id"),
    Column("salt", LargeBinary, nullable=False),
    Column("scrypt", LargeBinary, nullable=False),
    _created(),
)
api_key = Table(
    "api_key",
    metadata,
    _id(),
    _reference("account_id", "account.id"),
    Column("prefix", String(16), nullable=False),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("scopes", JSON, nullable=False),
    _created(),
)
api_key_revoked = Table(
    "api_key_revoked", metadata, _reference("api_key_id", "api_key.id", primary_key=True), _created()
)
sign_in_token = Table(
    "sign_in_token",
    metadata,
    _id(),
    _reference("account_id", "account.id"),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("expires", BigInteger, nullable=False),
    _created(),
)
sign_in_token_used = Table(
    "sign_in_token_used", metadata, _reference("sign_in_token_id", "sign_in_token.id", primary_key=True), _created()
)
login_session = Table(
    "login_session",
    metadata,
    _id(),
    _reference("account_id", "account.id"),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("csrf", String(64), nullable=False),
    Column("expires", BigInteger, nullable=False),
    _created(),
)
login_session_ended = Table(
    "login_session_ended", metadata, _reference("login_session_id", "login_session.id", primary_key=True), _created()
)
consent = Table(
    "consent",
    metadata,
    _id(),
    _reference("account_id", "account.id"),
    Column("granted", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    _created(),
)

# Conversations: a tree of messages; an edit or a regeneration is a sibling.
conversation = Table("conversation", metadata, _id(), _reference("owner_id", "account.id"), _created())
conversation_title = Table(
    "conversation_title",
    metadata,
    _id(),
    _reference("conversation_id", "conversation.id"),
    Column("title", Text, nullable=False),
    _created(),
)
conversation_deleted = Table(
    "conversation_deleted",
    metadata,
    _reference("conversation_id", "conversation.id", primary_key=True),
    _reference("actor_id", "account.id"),
    _created(),
)
message = Table(
    "message",
    metadata,
    _id(),
    _reference("conversation_id", "conversation.id"),
    _reference("parent_id", "message.id", nullable=True),
    Column("role", String(16), nullable=False),
    Column("content", Text, nullable=False),
    _created(),
)
draft_pair = Table("draft_pair", metadata, _id(), _reference("parent_id", "message.id"), _created())
generation = Table(
    "generation",
    metadata,
    _id(),
    _reference("parent_id", "message.id"),
    Column("message_id", String(64), nullable=False, unique=True),  # the message it will become
    _reference("draft_pair_id", "draft_pair.id", nullable=True),
    Column("position", Integer, nullable=False),  # within the pair
    Column("model", String(80), nullable=False),
    Column("sampling", JSON, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    _created(),
)
generation_piece = Table(
    "generation_piece",
    metadata,
    _reference("generation_id", "generation.id", primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("text", Text, nullable=False),
)
generation_end = Table(
    "generation_end",
    metadata,
    _reference("generation_id", "generation.id", primary_key=True),
    Column("state", String(16), nullable=False),  # done, stopped, interrupted, failed
    Column("finish_reason", String(16), nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("seconds", Float, nullable=False),
    _created(),
)

# Quick reactions.
thumb = Table(
    "thumb",
    metadata,
    _id(),
    _reference("message_id", "message.id"),
    _reference("account_id", "account.id"),
    Column("value", Integer, nullable=False),  # 1 or -1
    Column("reason", String(80), nullable=False),
    Column("comment", Text, nullable=False),
    Column("idempotency_key", String(80), nullable=False),
    Column("supersedes_id", String(64), nullable=True),
    _created(),
    UniqueConstraint("account_id", "idempotency_key"),
)
draft_choice = Table(
    "draft_choice",
    metadata,
    _id(),
    _reference("draft_pair_id", "draft_pair.id"),
    _reference("account_id", "account.id"),
    Column("choice", Integer, nullable=False),  # position within the pair
    Column("idempotency_key", String(80), nullable=False),
    Column("supersedes_id", String(64), nullable=True),
    _created(),
    UniqueConstraint("account_id", "idempotency_key"),
)

# Labeling.
label_task = Table(
    "label_task",
    metadata,
    _id(),
    Column("kind", String(16), nullable=False),  # rank
    Column("prompt_kind", String(32), nullable=False),
    Column("messages", JSON, nullable=False),
    Column("responses", JSON, nullable=False),
    Column("origins", JSON, nullable=False),  # the model that wrote each response, never shown to labelers
    Column("source", String(80), nullable=False),
    _reference("conversation_id", "conversation.id", nullable=True),
    Column("round", Integer, nullable=False, index=True),
    Column("form_version", Integer, nullable=False),
    Column("overlap", Integer, nullable=False),
    _created(),
)
label_assignment = Table(
    "label_assignment",
    metadata,
    _reference("task_id", "label_task.id", primary_key=True),
    _reference("account_id", "account.id", primary_key=True),
    Index("label_assignment_by_account", "account_id", "task_id"),
)
label_lease = Table(
    "label_lease",
    metadata,
    _id(),
    _reference("task_id", "label_task.id"),
    _reference("account_id", "account.id"),
    Column("shown_order", JSON, nullable=False),
    Column("expires", BigInteger, nullable=False),
    _created(),
)
ranking = Table(
    "ranking",
    metadata,
    _id(),
    _reference("task_id", "label_task.id"),
    _reference("account_id", "account.id"),
    Column("buckets", JSON, nullable=False),  # positions, best first, ties together
    Column("not_rankable", Boolean, nullable=False),
    Column("shown_order", JSON, nullable=False),
    Column("milliseconds", BigInteger, nullable=False),
    Column("form_version", Integer, nullable=False),
    Column("idempotency_key", String(80), nullable=False),
    Column("supersedes_id", String(64), nullable=True),
    _created(),
    UniqueConstraint("account_id", "idempotency_key"),
    Index("ranking_by_task", "task_id", "account_id"),
)
rating = Table(
    "rating",
    metadata,
    _reference("ranking_id", "ranking.id", primary_key=True),  # the answer it came with
    Column("position", Integer, primary_key=True),
    Column("likert", Integer, nullable=False),  # 1 to 7; 0 = not given
    Column("flags", JSON, nullable=False),
    Column("note", Text, nullable=False),
)
demonstration = Table(
    "demonstration",
    metadata,
    _id(),
    _reference("account_id", "account.id"),
    Column("messages", JSON, nullable=False),  # ends in the assistant's answer
    Column("source", String(80), nullable=False),
    Column("round", Integer, nullable=False),
    Column("idempotency_key", String(80), nullable=False),
    _created(),
    UniqueConstraint("account_id", "idempotency_key"),
)

# Rounds, models, and what went into them.
model = Table(
    "model",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("kind", String(16), nullable=False),  # base, supervised, reward, policy, imported
    Column("artifact", String(80), nullable=False),
    _reference("parent", "model.name", nullable=True),
    Column("round", Integer, nullable=False),
    _created(),
)
round_ = Table("round", metadata, Column("n", Integer, primary_key=True, autoincrement=False), _created())
round_event = Table(
    "round_event",
    metadata,
    _id(),
    Column("round", Integer, ForeignKey("round.n"), nullable=False, index=True),
    Column("state", String(16), nullable=False),
    Column("verdict", JSON, nullable=False),
    Column("actor", String(80), nullable=False),
    Column("reason", Text, nullable=False),
    _created(),
)
round_artifact = Table(
    "round_artifact",
    metadata,
    Column("round", Integer, ForeignKey("round.n"), primary_key=True),
    Column("role", String(32), primary_key=True),  # snapshot, report
    Column("artifact", String(80), primary_key=True),
    _created(),
)
deployment = Table(
    "deployment",
    metadata,
    _id(),
    _reference("model", "model.name"),
    Column("round", Integer, nullable=False),
    Column("kind", String(16), nullable=False),  # promote, override, rollback
    Column("actor", String(80), nullable=False),
    Column("reason", Text, nullable=False),
    _created(),
)
snapshot_item = Table(
    "snapshot_item",
    metadata,
    Column("snapshot", String(80), primary_key=True),
    Column("source", String(16), primary_key=True),  # ranking, thumb, draft_choice, conversation, demonstration
    Column("row_id", String(64), primary_key=True),
    _reference("account_id", "account.id"),
)
model_input = Table(
    "model_input",
    metadata,
    _reference("model", "model.name", primary_key=True),
    Column("snapshot", String(80), primary_key=True),
)
