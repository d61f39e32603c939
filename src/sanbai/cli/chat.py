"""`sanbai chat`: talk to a model in the terminal."""

from __future__ import annotations

from pathlib import Path

import click

from sanbai.cli.options import open_workspace, workspace_options


@click.command(help="Talk to a model in the terminal.")
@click.option("--model", "name", default="served", show_default=True, help="A model's name, or its artifact's.")
@click.option("--temperature", type=click.FloatRange(0, 100), default=0.4, show_default=True)
@click.option("--max-new-tokens", type=click.IntRange(1), default=256, show_default=True)
@workspace_options
def command(name: str, temperature: float, max_new_tokens: int, workspace: Path, database: str) -> None:
    """Read lines, stream answers; an empty line or Ctrl-D ends."""
    import secrets

    from sanbai.cli.stores import open_store, resolve_model
    from sanbai.data.vocabulary import load_tokenizer
    from sanbai.generation.answering import stream_answer
    from sanbai.generation.engine import ContinuousEngine, EngineSettings
    from sanbai.generation.request import Request
    from sanbai.generation.sampling import Sampling
    from sanbai.model.hugging_face import load_language_model
    from sanbai.text.chat_template import encode_prompt

    space = open_workspace(workspace, database)
    artifact = resolve_model(open_store(space), space, name)
    tokenizer, model = load_tokenizer(artifact), load_language_model(artifact.path)
    sampling = Sampling(temperature=temperature, max_new_tokens=max_new_tokens)
    settings = EngineSettings(num_blocks=-(-model.config.max_positions // EngineSettings().block_size))
    engine = ContinuousEngine(model, settings, tokenizer=tokenizer)  # remembers what of the talk it has read
    messages: list[dict[str, str]] = []
    click.echo(f"{name} ({artifact.name}); an empty line ends", err=True)
    room = max(model.config.max_positions // 2, model.config.max_positions - max_new_tokens)
    while line := _next_line():
        messages.append({"role": "user", "content": line})
        prompt = encode_prompt(tokenizer, messages, max_tokens=room)
        pieces = []
        request = Request(
            prompt=prompt, sampling=sampling, seeds=[secrets.randbits(62)], stop_ids=tokenizer.reserved.ends()
        )
        for new in stream_answer(engine, request):
            pieces.append(new.text)
            click.echo(new.text, nl=False)
        click.echo()
        messages.append({"role": "assistant", "content": "".join(pieces)})


def _next_line() -> str:
    """Ask for a line; empty at the end of the input."""
    try:
        line: str = click.prompt("you", default="", show_default=False, prompt_suffix="> ")
    except click.Abort:
        return ""
    return line
