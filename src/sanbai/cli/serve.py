"""`sanbai serve`: the chat app, the labelers' console, the rounds and the OpenAI-compatible API."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sanbai.cli.options import open_workspace, workspace_options

if TYPE_CHECKING:
    from sanbai.foundation.workspace import Workspace
    from sanbai.serving.recipe import ServeRecipe


@click.command(help="Serve the chat app, the console and the OpenAI-compatible API.")
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="Instead of the recipe's; 8300 if none says.")
@click.option("--recipe", default="", help="Take the section [serve] of this recipe.")
@click.option("--model", default="", help="Serve this registered model instead of the one that passed the gate.")
@click.option("--backend", default="", help="Let another server answer: vLLM, SGLang, llama.cpp; http://HOST:PORT/v1.")
@click.option("--backend-key-variable", default="", help="Environment variable that holds the backend's key.")
@click.option(
    "--candidates",
    type=click.IntRange(1, 64),
    default=None,
    help="Draw so many answers in the chat; a model that judges itself chooses.",
)
@click.option("--cluster", default="", help="Run the engine on this Ray cluster: HOST:6379, auto or local.")
@click.option("--replicas", type=click.IntRange(1, 10_000), default=2, show_default=True, help="Engines there.")
@workspace_options
def command(
    port: int | None,
    recipe: str,
    model: str,
    backend: str,
    backend_key_variable: str,
    candidates: int | None,
    cluster: str,
    replicas: int,
    workspace: Path,
    database: str,
) -> None:
    """Serve until stopped."""
    from sanbai.cli.recipes import find_recipe, read_recipe
    from sanbai.foundation.errors import UsageError
    from sanbai.foundation.recipe import validate_recipe
    from sanbai.serving.recipe import ServeRecipe

    settings = read_recipe(find_recipe(recipe))[1] if recipe else ServeRecipe()
    given = {"backend": backend, "backend_key_variable": backend_key_variable, "candidates": candidates}
    changes = {name: value for name, value in given.items() if value}
    settings = validate_recipe(ServeRecipe, {**settings.model_dump(), **changes}, source="--backend")
    if settings.backend and (model or cluster):
        raise UsageError("--backend: it answers alone; by serve.backend_model; leave --model and --cluster out")
    if settings.candidates > 1 and cluster:
        raise UsageError("--cluster: the chat's answers come from replicas, which draw one each; leave candidates out")
    listener = take_port(settings, port)
    space = open_workspace(workspace, database)
    if cluster:
        serve_on_cluster(space, settings, listener, address=cluster, replicas=replicas, model=model)
    else:
        serve_workspace(space, settings, listener, model=model)


def serve_on_cluster(
    workspace: Workspace, settings: ServeRecipe, listener: socket.socket, *, address: str, replicas: int, model: str
) -> None:
    """Serve a workspace until stopped, with engines on a Ray cluster.

    Raises:
        ResourceError: Ray is not installed, or the cluster cannot be reached.
        UnknownNameError: no model has the name that is given.
    """
    from sanbai.cli.stores import open_store
    from sanbai.serving import cluster

    store = open_store(workspace)
    wanted = cluster.Deployment(
        workspace.root.absolute(), workspace.database_url, settings, replicas=replicas, model=model
    )
    with cluster.replicas(store, wanted, address=address) as (gateway, key):
        serve_workspace(workspace, gateway, listener, backend_key=key)


def take_port(settings: ServeRecipe, port: int | None) -> socket.socket:
    """Take a port, or the settings' where none is given, before anything slow begins.

    Raises:
        ResourceError: it is in use.
        UsageError: others could reach the address, and that is not allowed.
    """
    from sanbai.serving.server import open_socket

    return open_socket(settings.host, settings.port if port is None else port, allow_remote=settings.allow_remote)


def serve_workspace(
    workspace: Workspace, settings: ServeRecipe, listener: socket.socket, *, model: str = "", backend_key: str = ""
) -> None:
    """Serve a workspace until stopped, telling where and, at the first start, how to sign in.

    Raises:
        UnknownNameError: no model has the name that is given.
        ModelError: it writes no text.
        ArtifactError: it has no tokenizer.
    """
    from sanbai.cli.greeting import greet
    from sanbai.cli.stores import open_store
    from sanbai.feedback.registry import find_model
    from sanbai.rounds.promotion import promote
    from sanbai.serving.app import create_app
    from sanbai.serving.engine import check_servable, served_name
    from sanbai.serving.server import base_url_of, first_administrator, serve

    store = open_store(workspace)
    if name := model or (settings.candidates > 1 and served_name(store)):
        check_servable(workspace, find_model(store, name), settings)
    app = create_app(
        workspace,
        store,
        settings=settings,
        welcome=greet(workspace),
        promote=lambda number, reason, actor: promote(store, number, actor=actor, override_reason=reason),
        model=model,
        backend_key=backend_key,
    )
    address = base_url_of(listener)
    click.echo(f"Sanbai serves on {address}", err=True)
    if sign_in := first_administrator(store, address):
        click.echo(f"Sign in, this once, as the administrator: {sign_in}", err=True)
    else:
        click.echo("Sign in with your password; `sanbai account sign-in admin` gives a new one-time sign-in.", err=True)
    serve(app, settings.host, settings.port, listener=listener)
