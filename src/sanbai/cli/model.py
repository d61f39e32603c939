"""`sanbai model`: the models that rounds made; models from elsewhere in, and any model out."""

from __future__ import annotations

from pathlib import Path

import click

from sanbai.cli.options import json_option, open_workspace, print_record, workspace_options


@click.group(help="List models, show one, trace its lineage; import and export.")
def command() -> None:
    """Group."""


@command.command("list")
@click.option("--presets", is_flag=True, help="List the shapes that ship instead.")
@workspace_options
@json_option
def list_(workspace: Path, database: str, *, presets: bool, as_json: bool) -> None:
    """List the registered models; `*` marks the one that serves."""
    if presets:
        _list_presets(as_json=as_json)
        return
    from dataclasses import asdict

    from sanbai.cli.stores import open_store
    from sanbai.feedback.registry import list_models, served

    store = open_store(open_workspace(workspace, database))
    deployment = served(store)
    serving = deployment.model if deployment else ""
    models = list_models(store)
    for model in models:
        mark = "*" if model.name == serving else " "
        click.echo(f"{mark} {model.name:<16} {model.kind:<11} round {model.round:<3} {model.artifact}")
    if not models:
        click.echo("no models yet; `sanbai quickstart` makes some", err=True)
    if as_json:
        print_record([{**asdict(model), "served": model.name == serving} for model in models])


def _list_presets(*, as_json: bool) -> None:
    from sanbai.model.presets import PRESETS
    from sanbai.model.size import count_parameters, shape_of

    form = "{:<16} {:>12} {:>6} {:>6} {:>8} {:>16} {:>12} {:>10} {:>13}  {}"
    heading = form.format(
        "preset", "parameters", "layers", "width", "heads", "feed-forward", "norm", "positions", "mask", "experts"
    )
    click.echo(heading)
    rows = []
    for name, config in PRESETS.items():
        parameters = count_parameters(shape_of(config)).total
        rows.append({"name": name, "parameters": parameters, **config.model_dump(mode="json")})
        alike = config.num_heads == config.num_kv_heads
        cells = (
            name,
            f"{parameters / 1e6:,.1f}M",
            f"{config.encoder_layers}+{config.num_layers}" if config.encoder_layers else config.num_layers,
            config.width,
            f"{config.num_heads}" if alike else f"{config.num_heads}/{config.num_kv_heads}",
            f"{config.feed_forward} {config.feed_forward_width}",
            f"{config.norm} {config.norm_place}",
            config.positions,
            "+".join(("full", *config.masks) if config.encoder_layers else config.masks),
            "" if config.sparse_layers == "none" else f"{config.experts.num_experts}, {config.sparse_layers}",
        )
        click.echo(form.format(*cells).rstrip())
    if as_json:
        print_record(rows)


@command.command()
@click.argument("name")
@workspace_options
@json_option
def show(name: str, workspace: Path, database: str, *, as_json: bool) -> None:
    """Show what made a model, and its figures."""
    from sanbai.cli.stores import open_store, resolve_model

    space = open_workspace(workspace, database)
    artifact = resolve_model(open_store(space), space, name)
    manifest = dict(artifact.manifest)
    for key in ("kind", "stage", "id", "parents", "seed", "metrics", "licences", "machine", "started", "seconds"):
        click.echo(f"{key:<10} {manifest[key]}")
    if as_json:
        print_record(manifest)


@command.command()
@click.argument("name")
@workspace_options
@json_option
def lineage(name: str, workspace: Path, database: str, *, as_json: bool) -> None:
    """Show the models that a model came from, and how many rows of feedback shaped it."""
    from dataclasses import asdict

    from sanbai.cli.stores import open_store
    from sanbai.feedback.registry import model_lineage, served
    from sanbai.feedback.snapshots import labels_of

    store = open_store(open_workspace(workspace, database))
    deployment = served(store)
    if name == "served" and deployment is not None:
        name = deployment.model
    chain = model_lineage(store, name)
    for depth, model in enumerate(chain):
        snapshots = ", ".join(model.snapshots) or "no feedback"
        click.echo(f"{'  ' * depth}{model.name} ({model.kind}, round {model.round}, {model.artifact}; {snapshots})")
    labels = labels_of(store, name)
    click.echo(f"shaped by {len(labels)} rows of feedback")
    if as_json:
        print_record({"lineage": [asdict(model) for model in chain], "feedback_rows": len(labels)})


@command.command("import")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--name", default="", help="How to call it here; the folder's name if not given.")
@workspace_options
@json_option
def import_(folder: Path, name: str, workspace: Path, database: str, *, as_json: bool) -> None:
    """Copy the Hugging Face folder FOLDER into the workspace as a model that stages can start from."""
    from sanbai.cli.options import open_job
    from sanbai.cli.stores import check_name, open_store, register
    from sanbai.model.exchange import import_model

    name = name or folder.resolve().name
    check_name(name)
    space = open_workspace(workspace, database)
    store = open_store(space)
    with open_job(space) as job:
        artifact = import_model(job, folder)
    register(store, name, "imported", artifact)
    metrics = artifact.metrics
    click.echo(f"{name}: {artifact.path}")
    click.echo(f"{metrics['architecture']}, {metrics['parameters']:,} parameters in {metrics['dtype']}", err=True)
    click.echo(f"tokenizer: {metrics['tokenizer']}; chat template: {metrics['chat']}", err=True)
    if as_json:
        print_record({"name": name, "artifact": artifact.name, "metrics": dict(metrics)})


@command.command("export")
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--format", "layout", type=click.Choice(["hugging-face"]), default="hugging-face", show_default=True)
@workspace_options
@json_option
def export(name: str, folder: Path, layout: str, workspace: Path, database: str, *, as_json: bool) -> None:
    """Copy the model NAME into a new FOLDER that transformers, vLLM and llama.cpp read."""
    from sanbai.cli.stores import open_store, resolve_model
    from sanbai.model.exchange import export_model

    space = open_workspace(workspace, database)
    artifact = resolve_model(open_store(space), space, name)
    export_model(artifact, folder)
    click.echo(str(folder))
    if as_json:
        print_record({"model": artifact.name, "folder": str(folder), "format": layout})
