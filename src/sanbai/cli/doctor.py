"""`sanbai doctor`: whether this machine and this workspace are fit, each finding with the next step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from sanbai.cli.options import json_option, open_workspace, print_record, workspace_options

WANTED_GIBIBYTES = 2


@click.command(help="Check this machine and the workspace.")
@workspace_options
@json_option
def command(workspace: Path, database: str, *, as_json: bool) -> None:
    """Print a line a check; exit 1 if one failed."""
    findings = list(_check(workspace, database))
    for name, passed, detail in findings:
        click.echo(f"{'ok  ' if passed else 'FAIL'} {name:<12} {detail}")
    if as_json:
        print_record([{"check": name, "passed": passed, "detail": detail} for name, passed, detail in findings])
    if not all(passed for _, passed, _ in findings):
        raise click.exceptions.Exit(1)


def _check(workspace: Path, database: str) -> Iterator[tuple[str, bool, str]]:
    import os
    import shutil

    from sanbai.cli.stores import open_store
    from sanbai.foundation.artifacts import load_artifact
    from sanbai.foundation.device import describe_machine
    from sanbai.foundation.errors import SanbaiError

    machine = describe_machine()
    yield "machine", True, ", ".join(f"{key} {value}" for key, value in machine.items())
    cores = os.cpu_count() or 1
    yield "cores", cores >= 2, f"{cores}; the quickstart's time is stated for 2"
    try:
        space = open_workspace(workspace, database)
        free = shutil.disk_usage(space.root).free / 2**30
        yield "disk", free >= WANTED_GIBIBYTES, f"{free:.1f} GiB free; wanted {WANTED_GIBIBYTES}"
        store = open_store(space)
        yield "database", True, store.place
    except SanbaiError as error:
        yield "workspace", False, str(error)
        return
    folders = sorted(space.artifacts.glob("[!.]*"))
    for folder in folders:
        try:
            load_artifact(folder).verify()
        except SanbaiError as error:
            yield "artifact", False, str(error)
    yield "artifacts", True, f"{len(folders)} checked"
