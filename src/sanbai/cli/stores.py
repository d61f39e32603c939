"""The feedback store and the models it names, for commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
