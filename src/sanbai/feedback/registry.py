"""The registry: models and where they come from, rounds and their states, and which model serves.

The served model is the top of a stack that deployment rows replay: a promotion (or an override) puts a model on it, a
rollback takes the newest off. So two rollbacks go back two models, and every step stays on record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from sqlalchemy import Connection, func, select

from sanbai.feedback import schema
from sanbai.feedback.identifiers import new_id, now_ms
from sanbai.feedback.store import Store
from sanbai.foundation.errors import UnknownNameError, UsageError

ModelKind = Literal["base", "supervised", "reward", "policy", "imported"]
RoundState = Literal["open", "snapshot", "training", "evaluating", "gated", "serving", "refused", "rolled_back"]
DeploymentKind = Literal["promote", "override", "rollback"]


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A model by the name that people use.

    Attributes:
        artifact: `model-<12 hex>`, the folder in the workspace.
        parent: the model whose weights it started from, or empty.
        snapshots: artifacts of the frozen feedback that it was trained on.
    """

    name: str
    kind: ModelKind
    artifact: str
    parent: str = ""
    round: int = 0
    snapshots: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RoundEvent:
    """A round came into a state; `time` is in milliseconds since 1970."""

    state: RoundState
    actor: str = ""
    reason: str = ""
    verdict: Mapping[str, Any] = field(default_factory=dict)
    time: int = 0


@dataclass(frozen=True, slots=True)
class Round:
    """A round with all that happened to it, oldest first, and its artifacts by role."""

    n: int
    events: tuple[RoundEvent, ...]
    artifacts: Mapping[str, tuple[str, ...]]

    @property
    def state(self) -> RoundState:
        """The newest event's state."""
        return self.events[-1].state

    @property
    def verdict(self) -> Mapping[str, Any]:
        """The newest verdict, or nothing."""
        return next((event.verdict for event in reversed(self.events) if event.verdict), {})


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model was put into service."""

    model: str
    round: int
    kind: DeploymentKind
    actor: str
    reason: str
    time: int


def add_model(store: Store, model: RegisteredModel) -> None:
    """Register a model; the same one again does nothing.

    Raises:
        UsageError: another model has the name.
        UnknownNameError: no such parent.
    """
    with store.write() as connection:
        known = _models(connection)
        if model.name in known:
            if known[model.name] != model:
                raise UsageError(f"{model.name}: another model has this name; choose another")
            return
        if model.parent and model.parent not in known:
            raise UnknownNameError(f"{model.parent}: no such model; register the parent first")
        newest = connection.execute(select(func.max(schema.model.c.created))).scalar() or 0
        connection.execute(
            schema.model.insert().values(
                name=model.name,
                kind=model.kind,
                artifact=model.artifact,
                parent=model.parent or None,
                round=model.round,
                created=max(now_ms(), newest + 1),  # the order of registration, though two fall into one millisecond
            )
        )
        for snapshot in model.snapshots:
            connection.execute(schema.model_input.insert().values(model=model.name, snapshot=snapshot))


def list_models(store: Store) -> list[RegisteredModel]:
    """Return all models in the order they were registered."""
    with store.read() as connection:
        return list(_models(connection).values())


def find_model(store: Store, name: str) -> RegisteredModel:
    """Return a model by name.

    Raises:
        UnknownNameError: there is none.
    """
    with store.read() as connection:
        return _model(connection, name)


def model_lineage(store: Store, name: str) -> list[RegisteredModel]:
    """Return a model and the models it came from, newest first.

    Raises:
        UnknownNameError: no such model.
    """
    with store.read() as connection:
        chain = [_model(connection, name)]
        while chain[-1].parent:
            chain.append(_model(connection, chain[-1].parent))
    return chain


def add_round_event(store: Store, n: int, event: RoundEvent) -> None:
    """Append that a round came into a state; its first event opens it."""
    with store.write() as connection:
        _append_event(connection, n, event)


def add_round_artifact(store: Store, n: int, role: str, artifact: str) -> None:
    """Note an artifact that a round made: role `snapshot` or `report`. Noting it twice does nothing."""
    table = schema.round_artifact
    values = {"round": n, "role": role, "artifact": artifact}
    with store.write() as connection:
        _open_round(connection, n)
        if not connection.execute(select(table).filter_by(**values)).first():
            connection.execute(table.insert().values(created=now_ms(), **values))


def list_rounds(store: Store) -> list[Round]:
    """Return all rounds by number."""
    with store.read() as connection:
        numbers = connection.execute(select(schema.round_.c.n).order_by(schema.round_.c.n)).scalars().all()
        return [_round(connection, n) for n in numbers]


def find_round(store: Store, n: int) -> Round:
    """Return one round.

    Raises:
        UnknownNameError: there is none.
    """
    with store.read() as connection:
        if connection.execute(select(schema.round_.c.n).where(schema.round_.c.n == n)).first() is None:
            raise UnknownNameError(f"round {n}: no such round; see `sanbai round status`")
        return _round(connection, n)


def current_round(store: Store) -> int:
    """Return the number of the newest round; 0 before the first."""
    with store.read() as connection:
        return connection.execute(select(func.max(schema.round_.c.n))).scalar() or 0


def serve(
    store: Store,
    model: str,
    *,
    round: int,  # noqa: A002 - the field's own word
    actor: str,
    reason: str = "",
    kind: DeploymentKind = "promote",
) -> None:
    """Put a model into service, and its round into the state `serving`, in one transaction.

    Args:
        store: the store.
        model: a registered name.
        round: the round that made it.
        actor: who or what decided.
        reason: why; an override needs one.
        kind: `promote`, or `override` against the gate.

    Raises:
        UnknownNameError: no such model.
        UsageError: an override without a reason.
    """
    if kind == "override" and not reason.strip():
        raise UsageError("an override needs a reason; say why the gate is overruled")
    assert kind != "rollback"
    with store.write() as connection:
        _model(connection, model)
        _append_deployment(connection, Deployment(model, round, kind, actor, reason, now_ms()))
        _append_event(connection, round, RoundEvent("serving", actor, reason))


def rollback(store: Store, *, actor: str, reason: str = "") -> Deployment:
    """Bring back the model that served before, and mark the abandoned round `rolled_back`, in one transaction.

    Returns:
        The deployment that now serves.

    Raises:
        UsageError: nothing served before.
    """
    with store.write() as connection:
        stack = _stack(_deployments(connection))
        if len(stack) < 2:
            raise UsageError("nothing to roll back to: no model served before this one")
        abandoned, back = stack[-1], stack[-2]
        _append_deployment(connection, Deployment(back.model, back.round, "rollback", actor, reason, now_ms()))
        _append_event(connection, abandoned.round, RoundEvent("rolled_back", actor, reason))
        if back.round != abandoned.round:  # round one made the supervised model too
            _append_event(connection, back.round, RoundEvent("serving", actor, reason))
        return back


def served(store: Store) -> Deployment | None:
    """Return the deployment that serves now; None before the first."""
    with store.read() as connection:
        stack = _stack(_deployments(connection))
    return stack[-1] if stack else None


def list_deployments(store: Store) -> list[Deployment]:
    """Return every deployment row, oldest first."""
    with store.read() as connection:
        return _deployments(connection)


def _stack(deployments: Iterable[Deployment]) -> list[Deployment]:
    stack: list[Deployment] = []
    for deployment in deployments:
        if deployment.kind == "rollback":
            stack.pop()
        else:
            stack.append(deployment)
    return stack


def _models(connection: Connection) -> dict[str, RegisteredModel]:
    inputs: dict[str, list[str]] = {}
    for row in connection.execute(select(schema.model_input).order_by(schema.model_input.c.snapshot)):
        inputs.setdefault(row.model, []).append(row.snapshot)
    table = schema.model
    return {
        row.name: RegisteredModel(
            row.name,
            cast("ModelKind", row.kind),
            row.artifact,
            row.parent or "",
            row.round,
            tuple(inputs.get(row.name, ())),
        )
        for row in connection.execute(select(table).order_by(table.c.created, table.c.name))
    }


def _model(connection: Connection, name: str) -> RegisteredModel:
    known = _models(connection)
    if name not in known:
        raise UnknownNameError(f"{name}: no such model; see `sanbai model list`")
    return known[name]


def _open_round(connection: Connection, n: int) -> None:
    if connection.execute(select(schema.round_.c.n).where(schema.round_.c.n == n)).first() is None:
        connection.execute(schema.round_.insert().values(n=n, created=now_ms()))
        _append_event(connection, n, RoundEvent("open"))


def _append_event(connection: Connection, n: int, event: RoundEvent) -> None:
    if event.state != "open":
        _open_round(connection, n)
    elif connection.execute(select(schema.round_.c.n).where(schema.round_.c.n == n)).first() is None:
        connection.execute(schema.round_.insert().values(n=n, created=now_ms()))
    connection.execute(
        schema.round_event.insert().values(
            id=new_id(),
            round=n,
            state=event.state,
            verdict=dict(event.verdict),
            actor=event.actor,
            reason=event.reason,
            created=event.time or now_ms(),
        )
    )


def _round(connection: Connection, n: int) -> Round:
    events, artifacts = schema.round_event, schema.round_artifact
    happened = connection.execute(select(events).where(events.c.round == n).order_by(events.c.id)).all()
    by_role: dict[str, tuple[str, ...]] = {}
    for row in connection.execute(
        select(artifacts).where(artifacts.c.round == n).order_by(artifacts.c.created, artifacts.c.artifact)
    ):
        by_role[row.role] = (*by_role.get(row.role, ()), row.artifact)
    return Round(
        n,
        tuple(
            RoundEvent(cast("RoundState", row.state), row.actor, row.reason, row.verdict, row.created)
            for row in happened
        ),
        by_role,
    )


def _append_deployment(connection: Connection, deployment: Deployment) -> None:
    connection.execute(
        schema.deployment.insert().values(
            id=new_id(),
            model=deployment.model,
            round=deployment.round,
            kind=deployment.kind,
            actor=deployment.actor,
            reason=deployment.reason,
            created=deployment.time,
        )
    )


def _deployments(connection: Connection) -> list[Deployment]:
    table = schema.deployment
    return [
        Deployment(row.model, row.round, cast("DeploymentKind", row.kind), row.actor, row.reason, row.created)
        for row in connection.execute(select(table).order_by(table.c.id))
    ]
