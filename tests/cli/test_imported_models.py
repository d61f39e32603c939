"""Models that transformers made go through a whole recipe and back to transformers; the chat serves them.

One path for a GPT-2 (learned positions, transposed matrices, one tied head, no chat template) and a Qwen3 (rotary
positions, query and key norms, grouped heads, ChatML).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from click.testing import CliRunner
from tests.folders import make_folder
from tests.rounds.test_practice import RECIPE, write_files
from tests.serving.conftest import Site, ask, read_events

import sanbai
from sanbai.cli.main import cli
from sanbai.cli.stores import open_store
from sanbai.feedback.registry import list_models
from sanbai.foundation.errors import UsageError
from sanbai.foundation.workspace import Workspace
from sanbai.generation.sampling import Sampling
from sanbai.serving.app import create_app
from sanbai.serving.recipe import ServeRecipe
from sanbai.serving.server import loopback_server
from sanbai.serving.welcome import Welcome

transformers = pytest.importorskip("transformers")

#: The tiny recipe with room for these vocabularies, which were learnt on other words, and for their templates.
LONGER = {
    "num_epochs = 1\nrow_length = 48": "num_epochs = 8\nlearning_rate = 1e-2\nwarmup_steps = 2\nrow_length = 128",
    "max_prompt_tokens = 32": "max_prompt_tokens = 100",
    "max_positions = 128": "max_positions = 160",
}
#: A demonstration.
TALK: list[Any] = [{"role": "user", "content": "Who went to the mill on day 0?"}]
ANSWER = {"role": "assistant", "content": "The cow."}


def run(*words: str | Path, workspace: Path) -> Any:
    """Run a command as it is typed and return its record."""
    ended = CliRunner().invoke(cli, [*map(str, words), "--workspace", str(workspace), "--json"])
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout.splitlines()[-1])


def write_recipe(folder: Path) -> Path:
    write_files(folder)
    recipe = RECIPE
    for old, new in LONGER.items():
        assert old in recipe
        recipe = recipe.replace(old, new)
    (folder / "own.toml").write_text(recipe)
    return folder / "own.toml"


@pytest.mark.parametrize("kind", ["gpt2", "qwen3"])
def test_a_model_of_transformers_goes_through_a_recipe_and_back_and_is_served(kind: str, tmp_path: Path) -> None:
    recipe, space = write_recipe(tmp_path), tmp_path / "workspace"
    theirs = make_folder(tmp_path / "in", kind)
    imported = run("model", "import", tmp_path / "in", "--name", kind, workspace=space)
    record = run("run", "start", recipe, "--data", tmp_path, "--start", kind, "--name", "mine", workspace=space)
    assert record["artifacts"]["base"] == imported["artifact"]
    assert Path(record["report"]).is_file()

    store = open_store(Workspace(space))
    known = {model.name: (model.kind, model.parent) for model in list_models(store)}
    assert known == {
        kind: ("imported", ""),
        "mine-supervised": ("supervised", kind),
        "mine-ppo": ("policy", kind),
        "mine-ppo_without_ptx": ("policy", kind),
    }

    tokens = torch.randint(0, theirs.config.vocab_size, (2, 20), generator=torch.Generator().manual_seed(4))

    def loss(model: Any, tokenizer: Any) -> float:
        ids = torch.tensor([tokenizer.apply_chat_template([*TALK, ANSWER], return_dict=False)])
        return float(model(ids, labels=ids).loss)

    for name in ("mine-supervised", "mine-ppo"):
        run("model", "export", name, tmp_path / name, workspace=space)
        again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name).eval()
        taken = transformers.AutoTokenizer.from_pretrained(tmp_path / name)
        assert type(again) is type(theirs)
        ours = sanbai.load(name, workspace=space)
        with torch.no_grad():
            torch.testing.assert_close(ours(tokens), again(tokens).logits, rtol=1e-4, atol=1e-4)
            assert loss(again, taken) < loss(theirs, taken) - 1.0, "it has learnt the demonstrations"
    prompt = taken.apply_chat_template(TALK, add_generation_prompt=True, return_dict=False)
    reply = again.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False, pad_token_id=0)[0, len(prompt) :]
    ends = sanbai.load_tokenizer(tmp_path / "mine-ppo").reserved.ends()
    expected = taken.decode([token for token in reply.tolist() if token not in ends])

    # The API and the chat page answer, the API greedily with transformers' own words.
    settings = ServeRecipe(sampling=Sampling(temperature=0.0, max_new_tokens=8))
    app = create_app(Workspace(space), store, settings=settings, welcome=Welcome("Hello."), model="mine-ppo")
    with loopback_server(app) as url:
        site = Site(Workspace(space), store, app, url)
        with site.clients, openai.OpenAI(base_url=f"{url}/v1", api_key=site.key(), max_retries=0) as client:
            answered = client.chat.completions.create(model="mine-ppo", messages=TALK, temperature=0.0, max_tokens=8)
            page = site.client()
            (generation,) = ask(page, TALK[0]["content"])["generations"]
            assert read_events(page, generation["id"])[-1]["kind"] == "done"
            assert page.get("/").status_code == 200
    assert answered.choices[0].message.content == expected
    store.close()


def test_what_does_not_fit_the_start_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    recipe, space = write_recipe(tmp_path), tmp_path / "workspace"
    make_folder(tmp_path / "in", "gpt2")
    run("model", "import", tmp_path / "in", "--name", "mine", workspace=space)
    text = recipe.read_text()
    for old, new, line in (
        ("row_length = 128", "row_length = 140", r"supervise.row_length 140 is above the 128 positions of model-"),
        ("max_prompt_tokens = 100", "max_prompt_tokens = 120", r"together: 145 is above the 128 positions of model-"),
    ):
        recipe.write_text(text.replace(old, new))
        with pytest.raises(UsageError, match=line):
            run("run", "start", recipe, "--data", tmp_path, "--start", "mine", workspace=space)
    with pytest.raises(UsageError, match="--name mine: a round names its models itself"):
        run("run", "start", "quickstart", "--start", "mine", "--name", "mine", workspace=space)
    assert len(list((space / "artifacts").iterdir())) == 1
