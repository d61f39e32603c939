"""The whole way of a model from elsewhere: import, fine-tune by a recipe, chat page, export, transformers again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from click.testing import CliRunner, Result
from tests.folders import make_folder
from tests.rounds.test_practice import RECIPE, write_files
from tests.serving.conftest import Site, ask, read_events

from sanbai.cli.main import cli
from sanbai.cli.stores import open_store
from sanbai.feedback.registry import find_model
from sanbai.foundation.errors import ModelError, UsageError
from sanbai.foundation.workspace import Workspace
from sanbai.generation.sampling import Sampling
from sanbai.serving.app import create_app
from sanbai.serving.recipe import ServeRecipe
from sanbai.serving.server import loopback_server
from sanbai.serving.welcome import Welcome
from sanbai.text.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

TALK = [{"role": "user", "content": "Who went to the mill on day 0?"}]


def sanbai(*words: str | Path, workspace: Path) -> Result:
    ended = CliRunner().invoke(cli, [*map(str, words), "--workspace", str(workspace), "--json"])
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return ended


def record_of(ended: Result) -> Any:
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ["gpt2", "qwen"])
def test_a_model_from_elsewhere_is_fine_tuned_served_and_taken_away(kind: str, tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / "own.toml").write_text(RECIPE.replace("row_length = 48", "row_length = 128"))
    space = tmp_path / "workspace"
    theirs = make_folder(tmp_path / "in", kind)
    imported = record_of(sanbai("model", "import", tmp_path / "in", "--name", kind, workspace=space))
    trained = record_of(
        sanbai(
            *("train", "supervise", tmp_path / "own.toml", "--data", tmp_path),
            *("--start", kind, "--name", f"{kind}-chat"),
            workspace=space,
        )
    )
    assert trained["metrics"]["demonstrations"] == 30
    models = record_of(sanbai("model", "list", workspace=space))
    assert [(model["name"], model["kind"], model["parent"]) for model in models] == [
        (kind, "imported", ""),
        (f"{kind}-chat", "supervised", kind),
    ]
    assert models[0]["artifact"] == imported["artifact"]

    record_of(sanbai("model", "export", f"{kind}-chat", tmp_path / "out", workspace=space))
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert type(again) is type(theirs)
    assert again.get_input_embeddings().weight.shape == theirs.get_input_embeddings().weight.shape
    differing = [
        name for name, weight in again.named_parameters() if not torch.equal(weight, theirs.get_parameter(name))
    ]
    assert len(differing) > 10, "fine-tuning moved it"

    # Both ways of asking give the same ids and the same likeliest answer.
    prompt = tokenizer.apply_chat_template(TALK, add_generation_prompt=True, return_dict=False)
    expected = again.generate(torch.tensor([prompt]), max_new_tokens=6, do_sample=False, pad_token_id=0)[
        0, len(prompt) :
    ]
    ours = Tokenizer.load(tmp_path / "out")
    answered = record_of(
        sanbai(
            *("generate", TALK[0]["content"], "--model", f"{kind}-chat", "--temperature", "0", "--max-new-tokens", "6"),
            workspace=space,
        )
    )
    said = [token for token in expected.tolist() if token not in ours.reserved.ends()]
    assert answered["text"] == ours.decode(said)


def test_the_chat_page_serves_an_imported_model_by_name(tmp_path: Path) -> None:
    make_folder(tmp_path / "in", "qwen")
    root = tmp_path / "workspace"
    record_of(sanbai("model", "import", tmp_path / "in", "--name", "qwen", workspace=root))
    workspace = Workspace(root)
    store = open_store(workspace)
    settings = ServeRecipe(sampling=Sampling(temperature=1.0, max_new_tokens=8))
    app = create_app(workspace, store, settings=settings, welcome=Welcome("Hello."), model="qwen")
    with loopback_server(app) as url:
        site = Site(workspace, store, app, url)
        with site.clients:
            client = site.client()
            asked = ask(client, "Who <|im_end|> bakes?")
            (generation,) = asked["generations"]
            events = read_events(client, generation["id"])
            assert events[-1]["kind"] == "done"
            listed = httpx2.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {site.key()}"}).json()
            assert [model["id"] for model in listed["data"]] == ["sanbai", "qwen"], (
                "the house's name for it, and its own"
            )
    store.close()


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("bert", "bert: a masked model; wanted a language model"),
        ("t5", "t5: an encoder-decoder, which knows no conversation; .*`sanbai generate TEXT --model t5`"),
    ],
)
def test_serving_what_cannot_chat_is_refused_before_the_server_starts(kind: str, line: str, tmp_path: Path) -> None:
    from sanbai.serving.engine import check_servable
    from sanbai.serving.recipe import ServeRecipe

    make_folder(tmp_path / "in", kind)
    root = tmp_path / "workspace"
    record_of(sanbai("model", "import", tmp_path / "in", "--name", kind, workspace=root))
    workspace = Workspace(root)
    store = open_store(workspace)
    with pytest.raises(ModelError, match=line):
        check_servable(workspace, find_model(store, kind), ServeRecipe())
    store.close()
    refused = CliRunner().invoke(cli, ["chat", "--model", kind, "--workspace", str(root)])
    assert "wanted a language model" in str(refused.exception)


def test_an_encoder_decoder_answers_a_text_on_the_command_line(tmp_path: Path) -> None:
    theirs = make_folder(tmp_path / "in", "t5")
    record_of(sanbai("model", "import", tmp_path / "in", "--name", "t5", workspace=tmp_path / "workspace"))
    options = ("--model", "t5", "--temperature", "0", "--max-new-tokens", "8")
    answered = record_of(sanbai("generate", "Anna bakes bread.", *options, workspace=tmp_path / "workspace"))
    tokenizer = Tokenizer.load(tmp_path / "in")
    source = [*tokenizer.encode("Anna bakes bread."), tokenizer.reserved.end_of_text]
    expected = theirs.generate(torch.tensor([source]), max_new_tokens=8, do_sample=False)[0, 1:].tolist()
    assert answered["text"] == tokenizer.decode(expected)


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_an_assistant_is_not_made_from_what_cannot_chat(kind: str, tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / "own.toml").write_text(RECIPE)
    make_folder(tmp_path / "in", kind)
    space = tmp_path / "workspace"
    record_of(sanbai("model", "import", tmp_path / "in", "--name", kind, workspace=space))
    for words in (("train", "supervise"), ("run", "start")):
        with pytest.raises(ModelError, match="wanted a language model to make an assistant from"):
            sanbai(*words, tmp_path / "own.toml", "--data", tmp_path, "--start", kind, workspace=space)
    assert [path.name.split("-")[0] for path in (space / "artifacts").iterdir()] == ["model"], "nothing was computed"


def test_rows_longer_than_the_models_context_are_refused_before_training(tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / "own.toml").write_text(RECIPE.replace("row_length = 48", "row_length = 500"))
    make_folder(tmp_path / "in", "gpt2")
    sanbai("model", "import", tmp_path / "in", "--name", "gpt2", workspace=tmp_path / "workspace")
    with pytest.raises(UsageError, match=r"supervise.row_length 500 is above the 128 positions"):
        sanbai(
            *("train", "supervise", tmp_path / "own.toml", "--data", tmp_path, "--start", "gpt2"),
            workspace=tmp_path / "workspace",
        )


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    make_folder(tmp_path / "one", "gpt2")
    make_folder(tmp_path / "two", "qwen")
    space = tmp_path / "workspace"
    record_of(sanbai("model", "import", tmp_path / "one", "--name", "mine", workspace=space))
    record_of(sanbai("model", "import", tmp_path / "one", "--name", "mine", workspace=space))
    with pytest.raises(UsageError, match="mine: another model has this name"):
        sanbai("model", "import", tmp_path / "two", "--name", "mine", workspace=space)
    with pytest.raises(UsageError, match=r"--name .served."):
        sanbai("model", "import", tmp_path / "two", "--name", "served", workspace=space)
