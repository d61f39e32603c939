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
@workspace_options
def command(port: int | None, recipe: str, model: str, workspace: Path, database: str) -> None:
    """Serve until stopped."""
    from sanbai.cli.recipes import find_recipe, read_recipe
    from sanbai.serving.recipe import ServeRecipe

    settings = read_recipe(find_recipe(recipe))[1] if recipe else ServeRecipe()
    listener = take_port(settings, port)
    serve_workspace(open_workspace(workspace, database), settings, listener, model=model)


def take_port(settings: ServeRecipe, port: int | None) -> socket.socket:
    """Take a port, or the settings' where none is given, before anything slow begins.

    Raises:
        ResourceError: it is in use.
        UsageError: others could reach the address, and that is not allowed.
    """
    from sanbai.serving.server import open_socket

    return open_socket(settings.host, settings.port if port is None else port, allow_remote=settings.allow_remote)


def serve_workspace(workspace: Workspace, settings: ServeRecipe, listener: socket.socket, *, model: str = "") -> None:
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
    from sanbai.serving.engine import check_servable
    from sanbai.serving.server import base_url_of, first_administrator, serve

    store = open_store(workspace)
    if model:
        check_servable(workspace, find_model(store, model))
    app = create_app(
        workspace,
        store,
        settings=settings,
        welcome=greet(workspace),
        promote=lambda number, reason, actor: promote(store, number, actor=actor, override_reason=reason),
        model=model,
    )
    address = base_url_of(listener)
    click.echo(f"Sanbai serves on {address}", err=True)
    if sign_in := first_administrator(store, address):
        click.echo(f"Sign in, this once, as the administrator: {sign_in}", err=True)
    else:
        click.echo("Sign in with your password; `sanbai account sign-in admin` gives a new one-time sign-in.", err=True)
    serve(app, settings.host, settings.port, listener=listener)
