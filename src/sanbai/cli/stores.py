"""The feedback store and the models it names, for commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sanbai.feedback.registry import ModelKind
    from sanbai.feedback.store import Store
    from sanbai.foundation.artifacts import Artifact
    from sanbai.foundation.workspace import Workspace


def open_store(workspace: Workspace) -> Store:
    """Return the workspace's store, its tables made.

    Raises:
        StoreError: the database is not ours or cannot be reached.
    """
    from sanbai.feedback.store import Store

    store = Store(workspace.database_url)
    store.create()
    return store


def resolve_model(store: Store, workspace: Workspace, name: str) -> Artifact:
    """Return a model's artifact by its registered name, its artifact's name, or `served`; its files are checked.

    Raises:
        UnknownNameError: nothing is called so.
        ArtifactError: a file of it is damaged.
    """
    from sanbai.feedback.registry import list_models, served
    from sanbai.foundation.errors import UnknownNameError

    names = {model.name: model.artifact for model in list_models(store)}
    deployment = served(store)
    if deployment is not None:
        names["served"] = names[deployment.model]
    try:
        artifact = workspace.load(names.get(name, name))
    except UnknownNameError:
        known = ", ".join(names) or "none; `sanbai quickstart` makes some"
        raise UnknownNameError(f"{name}: no such model; known: {known}") from None
    artifact.verify()
    return artifact


def resolve_judges(
    store: Store, workspace: Workspace, reward: str, judge: str, *, newest: bool
) -> tuple[Artifact, Artifact] | None:
    """Return reward model and second judge by name, or else, if wanted, the newest round's; None where there are none.

    Raises:
        UsageError: only one of them is named.
        UnknownNameError: nothing is called so.
        ArtifactError: a file of one is damaged.
    """
    from sanbai.feedback.registry import list_models
    from sanbai.foundation.errors import UsageError

    if bool(reward) != bool(judge):
        raise UsageError("--reward and --judge go together: what is trained against, and what watches it")
    if not reward:
        rounds = [model.round for model in list_models(store) if model.name == f"judge-{model.round}"]
        if not rounds or not newest:
            return None
        reward, judge = f"reward-{max(rounds)}", f"judge-{max(rounds)}"
    return resolve_model(store, workspace, reward), resolve_model(store, workspace, judge)


def resolve_reward(store: Store, workspace: Workspace, name: str) -> Artifact:
    """Return a reward model by name, or the newest round's if none is named.

    Raises:
        UnknownNameError: nothing is called so, or no round has made one.
        ArtifactError: a file of it is damaged.
    """
    from sanbai.foundation.errors import UnknownNameError

    if name:
        return resolve_model(store, workspace, name)
    judges = resolve_judges(store, workspace, "", "", newest=True)
    if judges is None:
        raise UnknownNameError("no reward model yet; name one with --reward, or finish a round with `sanbai round run`")
    return judges[0]


def check_name(name: str) -> None:
    """Refuse, before any work, what cannot be a model's name; no name at all is allowed.

    Raises:
        UsageError: longer than 80 characters, `served`, or with other than letters, digits, dots, dashes, underlines.
    """
    import re

    from sanbai.foundation.errors import UsageError

    if name and (name == "served" or not re.fullmatch(r"[\w][\w.-]{0,79}", name)):
        raise UsageError(f"--name {name!r}: wanted letters, digits, dots and dashes, 80 at most, and not 'served'")


def register(
    store: Store, name: str, kind: ModelKind, artifact: Artifact, *, parent: str = "", snapshots: Sequence[str] = ()
) -> None:
    """Name a model that a command made outside the rounds.

    Args:
        store: the registry.
        name: the model's.
        kind: what it is.
        artifact: the model.
        parent: the model it started from, by name; left out where that has none.
        snapshots: artifacts of the frozen feedback that it was trained on.

    Raises:
        UsageError: another model has the name.
    """
    from sanbai.feedback.registry import RegisteredModel, add_model, list_models, served

    deployment = served(store)
    if parent == "served" and deployment is not None:
        parent = deployment.model
    known = {model.name for model in list_models(store)}
    parent = parent if parent in known else ""
    add_model(store, RegisteredModel(name, kind, artifact.name, parent, snapshots=tuple(snapshots)))
