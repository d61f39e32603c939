"""`sanbai generate`: complete a text once."""

from __future__ import annotations

from pathlib import Path

import click

from sanbai.cli.options import json_option, open_workspace, print_record, workspace_options


@click.command(help="Complete a text once.")
@click.argument("text")
@click.option("--model", "name", default="served", show_default=True, help="A model's name, or its artifact's.")
@click.option(
    "--raw",
    is_flag=True,
    help="Continue the text itself instead of answering it as a message. An encoder-decoder always reads the text.",
)
@click.option("--temperature", type=click.FloatRange(0, 100), default=0.7, show_default=True)
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True)
@click.option("--max-new-tokens", type=click.IntRange(1), default=128, show_default=True)
@click.option(
    "--best-of", type=click.IntRange(1, 1024), default=1, show_default=True, help="Draw so many, say the best."
)
@click.option("--reward", default="", help="The reward model that chooses; the default is the newest round's.")
@click.option("--seed", type=int, default=1, show_default=True)
@workspace_options
@json_option
def command(
    text: str,
    name: str,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    best_of: int,
    reward: str,
    seed: int,
    workspace: Path,
    database: str,
    *,
    raw: bool,
    as_json: bool,
) -> None:
    """Print what the model says."""
    from sanbai.cli.stores import open_store, resolve_model, resolve_reward
    from sanbai.data.vocabulary import load_tokenizer
    from sanbai.foundation.device import Compute
    from sanbai.generation.answering import generate
    from sanbai.generation.sampling import Sampling
    from sanbai.generation.writer import encode_text
    from sanbai.model.encoder_decoder import EncoderDecoder
    from sanbai.model.hugging_face import load_writer
    from sanbai.rounds.stages.judges import check_vocabulary
    from sanbai.text.chat_template import encode_prompt
    from sanbai.training.candidates import best_answer
    from sanbai.training.reward_model import load_reward_model

    space = open_workspace(workspace, database)
    store = open_store(space)
    artifact = resolve_model(store, space, name)
    tokenizer = load_tokenizer(artifact)
    model = load_writer(artifact.path)
    if raw or isinstance(model, EncoderDecoder):
        prompt = encode_text(tokenizer, text, model)
    else:
        prompt = encode_prompt(tokenizer, [{"role": "user", "content": text}])
    sampling = Sampling(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens)
    judged = {}
    if best_of == 1:
        answer = generate(model, [prompt], sampling, seeds=[seed], stop_ids=tokenizer.reserved.ends())[0]
    elif raw or isinstance(model, EncoderDecoder):
        raise click.UsageError("--best-of is for answers: a reward model reads conversations; leave it out")
    else:
        chooser = resolve_reward(store, space, reward)
        check_vocabulary(artifact, {"reward model": chooser})
        compute = Compute(num_threads=1, precision="float32")
        score = load_reward_model(chooser.path, compute)
        answer, judged["reward"] = best_answer(
            model, prompt, score, sampling, compute, tokenizer, num_candidates=best_of, seed=seed
        )
    completion = tokenizer.decode(answer.tokens)
    click.echo(completion)
    if as_json:
        print_record({"model": artifact.name, "text": completion, "finish_reason": answer.finish_reason, **judged})
