"""`sanbai`: the entry point. Commands import what they need when they run, so that `--help` answers at once."""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import Any

import click

from sanbai.foundation.errors import SanbaiError

#: name -> (module of this package, one line for `--help`); the order of the pipeline.
COMMANDS: dict[str, tuple[str, str]] = {
    "quickstart": ("quickstart", "Make an assistant from nothing on the tiny world, then serve it."),
    "plan": ("plan", "Count what a preset or a recipe needs: parameters, memory, days, cost."),
    "run": ("run", "Start a recipe's whole pipeline; list and show runs."),
    "data": ("data", "Build and look into a corpus."),
    "tokenizer": ("tokenizer", "Train a tokenizer; see what it makes of a text."),
    "train": ("train", "Run one training stage of a recipe and what it needs."),
    "evaluate": ("evaluate", "Measure models on held-out prompts and text."),
    "lab": ("lab", "Reproduce published phenomena in small runs, each with a control."),
    "generate": ("generate", "Complete a text once."),
    "chat": ("chat", "Talk to a model in the terminal."),
    "serve": ("serve", "Serve the chat app, the console and the OpenAI-compatible API."),
    "round": ("round", "Turn the wheel: status, run, promote, rollback."),
    "model": ("model", "List models, show one, trace its lineage; import and export."),
    "account": ("account", "Add accounts, make keys and one-time sign-ins."),
    "doctor": ("doctor", "Check this machine and the workspace."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported only when they run; `--help` shows the table above."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order of the pipeline."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"sanbai.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Print the table without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="sanbai")
def cli(**_: Any) -> None:
    """Sanbai: a ChatGPT that you own end to end.

    `sanbai quickstart` makes one from raw text, has its answers ranked, trains on the rankings, and serves it.
    """


def main() -> None:
    """Run the command line; every error is one line, and the exit code says whose fault it was."""
    debug = "--debug" in sys.argv
    try:
        sys.exit(cli(standalone_mode=False))  # click returns the code of an `Exit`, and None of a command
    except SanbaiError as error:
        if debug:
            traceback.print_exc()
        click.echo(f"sanbai: {error}" if error.exit_code == 0 else f"sanbai: error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        click.echo("sanbai: interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
