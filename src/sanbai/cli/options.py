"""Options that commands share, and what they turn into."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from sanbai.foundation.stage import Job
    from sanbai.foundation.workspace import Workspace

Command = TypeVar("Command", bound=Callable[..., Any])


def workspace_options(command: Command) -> Command:
    """Add `--workspace` and `--database`."""
    folder = click.option(
        "--workspace",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("workspace"),
        show_default=True,
        envvar="SANBAI_WORKSPACE",
        help="Folder of artifacts, runs and the embedded database.",
    )
    database = click.option(
        "--database",
        default="",
        envvar="SANBAI_DATABASE",
        help="URL of another database, e.g. postgresql+psycopg://...; the default is SQLite in the workspace.",
    )
    return folder(database(command))


def data_option(command: Command) -> Command:
    """Add `--data`."""
    folder = click.Path(path_type=Path, file_okay=False)
    return click.option("--data", type=folder, default=Path(), help="Folder of your files.")(command)


def start_option(command: Command) -> Command:
    """Add `--start`: a model of the workspace instead of a pretrained one."""
    return click.option("--start", default="", help="Start from this model of the workspace, with its tokenizer.")(
        command
    )


def json_option(command: Command) -> Command:
    """Add `--json`: the command's record as one line, the last on standard output."""
    return click.option("--json", "as_json", is_flag=True, help="End standard output with one JSON record.")(command)


def open_workspace(root: Path, database: str) -> Workspace:
    """Return the workspace, its folders made.

    Raises:
        ResourceError: they cannot be made.
    """
    from sanbai.foundation.workspace import Workspace

    workspace = Workspace(root, database)
    workspace.create()
    return workspace


@contextmanager
def open_job(workspace: Workspace) -> Iterator[Job]:
    """Yield a job with a progress view that listens for SIGTERM and Ctrl-C."""
    from sanbai.foundation.progress import open_progress
    from sanbai.foundation.stage import Job
    from sanbai.foundation.stop import StopSignal

    stop = StopSignal()
    stop.install()
    progress = open_progress()
    try:
        yield Job(workspace, progress, stop)
    finally:
        progress.close()


def print_record(record: object) -> None:
    """Print one JSON record on one line."""
    click.echo(json.dumps(record, ensure_ascii=False))
