"""`sanbai account`: who may sign in, and with what."""

from __future__ import annotations

from pathlib import Path

import click

from sanbai.cli.options import json_option, open_workspace, print_record, workspace_options


@click.group(help="Add accounts, make keys and one-time sign-ins.")
def command() -> None:
    """Group."""


@command.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["user", "labeler", "admin"]), default="user", show_default=True)
@workspace_options
def add(name: str, role: str, workspace: Path, database: str) -> None:
    """Add an account and print its one-time sign-in."""
    from sanbai.cli.stores import open_store
    from sanbai.feedback.accounts import add_account, make_sign_in_token

    store = open_store(open_workspace(workspace, database))
    account = add_account(store, name, role)  # type: ignore[arg-type]  # click has checked the choice
    click.echo(f"/sign-in?token={make_sign_in_token(store, account)}")


@command.command("list")
@workspace_options
@json_option
def list_(workspace: Path, database: str, *, as_json: bool) -> None:
    """List accounts with role and source."""
    from sanbai.cli.stores import open_store
    from sanbai.feedback.accounts import list_accounts

    accounts = list_accounts(open_store(open_workspace(workspace, database)))
    for account in accounts:
        click.echo(f"{account.name:<24} {account.role:<8} {account.source}")
    if as_json:
        print_record([{"name": one.name, "role": one.role, "source": one.source} for one in accounts])


@command.command("sign-in")
@click.argument("name")
@workspace_options
def sign_in(name: str, workspace: Path, database: str) -> None:
    """Print a new one-time sign-in for NAME; open it below the server's address."""
    from sanbai.cli.stores import open_store
    from sanbai.feedback.accounts import find_account, make_sign_in_token

    store = open_store(open_workspace(workspace, database))
    click.echo(f"/sign-in?token={make_sign_in_token(store, find_account(store, name))}")


@command.command()
@click.argument("name")
@workspace_options
def key(name: str, workspace: Path, database: str) -> None:
    """Print a new API key for NAME, once; only its hash is kept."""
    from sanbai.cli.stores import open_store
    from sanbai.feedback.accounts import find_account, make_api_key

    store = open_store(open_workspace(workspace, database))
    click.echo(make_api_key(store, find_account(store, name)))
