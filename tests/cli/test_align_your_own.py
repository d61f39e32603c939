"""The guide docs/guides/align-your-own.md, command by command: a checkpoint of transformers goes the whole way.

Imported, fine-tuned, ranked over HTTP, rewarded, practised (LoRA over one set of weights), judged by the gate, served,
ranked by a person at /label, practised again, exported, and loaded by transformers.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from tests.folders import CHATML, byte_level

import sanbai
from sanbai.cli.main import cli
from sanbai.cli.recipes import read_recipe
from sanbai.cli.stores import open_store
from sanbai.feedback.registry import find_round, list_models, served
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.run import read_metrics
from sanbai.foundation.workspace import Workspace
from sanbai.generation.sampling import Sampling
from sanbai.model.adapters.peft_folder import load_adapter
from sanbai.model.hugging_face import load_language_model
from sanbai.rounds.material import WorldMaterial
from sanbai.rounds.recipe import Recipe
from sanbai.serving.app import create_app
from sanbai.serving.recipe import ServeRecipe
from sanbai.serving.server import loopback_server
from sanbai.serving.welcome import Welcome
from sanbai.text.chat_template import encode_prompt

transformers = pytest.importorskip("transformers")

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/guides/align-your-own.md"
#: What a stage is made smaller by; everything else is the shipped recipe's.
SMALL: dict[str, dict[str, Any]] = {
    "": {"num_demonstrations": 200, "serve": {"sampling": {"max_new_tokens": 8}}},
    "compute": {"num_threads": 1},
    "world": {"document_bytes": 60_000},
    "supervise": {"num_epochs": 2, "batch_rows": 2, "row_length": 400, "learning_rate": 2e-2, "warmup_steps": 2},
    "label": {
        "num_prompts": 24, "num_heldout_prompts": 6, "num_open_prompts": 4, "sampling": {"max_new_tokens": 12},
        "num_labelers": 20, "num_judge_labelers": 4, "num_heldout_labelers": 4,
    },
    "reward": {"batch_prompts": 8, "learning_rate": 3e-3, "warmup_steps": 1, "validation_share": 0.2},
    "ppo": {
        "num_iterations": 2, "batch_prompts": 8, "minibatch_prompts": 4, "num_epochs": 1, "max_new_tokens": 12,
        "ptx_row_length": 128, "ptx_ratio": 0.25, "judge_iterations": 1, "warmup_iterations": 0, "learning_rate": 5e-3,
    },
    # Nothing so small passes a gate that means it; what the gate refuses is tested in tests/rounds.
    "gate": {"min_win_rate": 0.0, "max_axis_drop": 1.0, "max_kind_drop": 1.0, "max_bits_per_byte_rise": 9.0},
    "evaluate": {
        "num_prompts": 16, "num_documents": 6, "num_choices": 0, "bootstrap_draws": 200,
        "sampling": {"temperature": 0.7, "max_new_tokens": 12},
    },
}  # fmt: skip


def shrunk_recipe(name: str, small: dict[str, dict[str, Any]]) -> str:
    """A shipped recipe as TOML, with other values for some keys."""
    values = tomllib.loads((ROOT / "recipes" / f"{name}.toml").read_text())
    for section, changes in small.items():
        (values.setdefault(section, {}) if section else values).update(changes)

    def literal(value: Any) -> str:
        if isinstance(value, dict):
            return "{ " + ", ".join(f"{key} = {literal(inner)}" for key, inner in value.items()) + " }"
        return json.dumps(value)

    plain = [f"{key} = {literal(value)}" for key, value in values.items() if not isinstance(value, dict)]
    for section, fields in values.items():
        if isinstance(fields, dict):
            plain += [f"[{section}]", *(f"{key} = {literal(value)}" for key, value in fields.items())]
    return "\n".join(plain)


def make_checkpoint(folder: Path, recipe: Recipe) -> Any:
    """A Qwen3 of transformers with random weights and a vocabulary of the village's words; returns it."""
    documents = WorldMaterial(recipe).documents()
    engine = byte_level(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        texts=[document.text for document, _ in zip(documents, range(400), strict=False)],
        vocab_size=900,
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=engine, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHATML
    )
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=len(tokenizer) + 4, hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=12, intermediate_size=96, max_position_embeddings=512,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = transformers.Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def commands_of(page: Path) -> list[list[str]]:
    """The words of each line `$ sanbai ...` in the page's console blocks."""
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line.removeprefix("$ sanbai ")) for line in lines if line.startswith("$ sanbai ")]


def type_in(words: list[str]) -> str:
    """Run a command as it is typed, in the current folder; returns what it printed."""
    ended = CliRunner().invoke(cli, words)
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def rank_as_a_person(url: str, sign_in: str) -> int:
    """Sign in by the printed address, agree that it may train, rank all that lies at /label, the shortest first."""
    with httpx2.Client(base_url=url, timeout=30) as client:
        token = sign_in.strip().partition("token=")[2]
        signed = client.post("/api/sign-in", json={"token": token})
        client.headers["X-CSRF-Token"] = signed.json()["csrf"]
        assert client.post("/api/me/consent", json={"granted": True}).status_code == 200
        ranked = 0
        while (task := client.get("/api/label/next").json()["task"]) is not None:
            length = {one["position"]: len(one["html"]) for one in task["responses"]}
            buckets = [[place for place in length if length[place] == each] for each in sorted({*length.values()})]
            ratings = [{"likert": 4, "flags": [], "note": ""} for _ in task["responses"]]
            answer = {"buckets": buckets, "ratings": ratings, "not_rankable": False, "milliseconds": 900}
            assert client.post(f"/api/label/tasks/{task['id']}/answer", json=answer).status_code == 200
            ranked += 1
    return ranked


def serve_and_visit(space: Workspace, visit: Callable[[str], Any]) -> Any:
    """Serve what `sanbai serve` serves, on a free port, while somebody visits."""
    store = open_store(space)
    settings = ServeRecipe(sampling=Sampling(max_new_tokens=8))
    with loopback_server(create_app(space, store, settings=settings, welcome=Welcome("Hello."))) as url:
        found = visit(url)
    store.close()
    return found


def models_of(space: Workspace) -> dict[str, Artifact]:
    """The registered models by name, their files checked."""
    store = open_store(space)
    found = {model.name: space.load(model.artifact) for model in list_models(store)}
    store.close()
    for artifact in found.values():
        artifact.verify()
    return found


def check_round(space: Workspace, number: int, checkpoint: Path) -> None:
    """What a round leaves: adapters over one base, whose weights are the checkpoint's wherever no adapter stands."""
    models = models_of(space)
    policy, supervised = models[f"policy-{number}"], models["supervised"]
    for name in (f"reward-{number}", f"judge-{number}", f"policy-{number}"):
        settings = json.loads(models[name].file("adapter/adapter_config.json").read_text())
        assert settings["base_model_name_or_path"] == supervised.name, name
    beside = load_adapter(load_language_model(supervised.path), policy.path / "adapter").model
    merged, tokens = load_language_model(policy.path), torch.arange(40).view(2, 20)
    with torch.no_grad():
        torch.testing.assert_close(merged(tokens), beside(tokens), rtol=1e-4, atol=1e-4)
    before, after = (load_file(folder / "model.safetensors") for folder in (checkpoint, policy.path))
    differing = {name for name in before if not torch.equal(before[name], after[name])}
    assert differing == {name for name in before if name.endswith("_proj.weight")}

    losses = [row["loss"] for row in read_metrics(space.runs / supervised.name) if "loss" in row]
    assert sum(losses[-3:]) / 3 < losses[0] - 0.5, "it has learnt from the demonstrations"
    practice = read_metrics(space.runs / policy.name)
    steps = [row for row in practice if "reward" in row]
    assert len(steps) == 2
    assert steps[0]["kl"] == 0.0, "the first answers are the reference's own"
    assert steps[-1]["kl_k3"] > 0.0
    assert all(row["ptx_loss"] > 0 for row in steps)

    store = open_store(space)
    verdict, deployment = find_round(store, number).verdict, served(store)
    store.close()
    assert verdict["promote"]
    assert deployment is not None
    assert deployment.model == f"policy-{number}"


def test_the_guides_commands_take_a_checkpoint_the_whole_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.toml").write_text(shrunk_recipe("imported", SMALL))
    recipe, _ = read_recipe(tmp_path / "my.toml")
    theirs = make_checkpoint(tmp_path / "checkpoint", recipe)
    space = Workspace(tmp_path / "workspace")
    commands = {" ".join(words[:2]): words for words in commands_of(GUIDE)}
    assert list(commands) == [
        *("model import", "plan my.toml", "run start", "account add", "serve", "round run", "round status"),
        "model export",
    ]

    def type_next(name: str) -> str:
        return type_in(commands[name])

    type_next("model import")
    imported = models_of(space)["mine"]
    assert imported.file("model.safetensors").read_bytes() == (tmp_path / "checkpoint/model.safetensors").read_bytes()

    planned = type_next("plan my.toml").splitlines()
    assert [line.split(",")[0] for line in planned if ", LoRA, on one" in line] == [
        "supervise",
        "reward",
        "ppo",
        "direct",
    ]

    type_next("run start")
    check_round(space, 1, tmp_path / "checkpoint")
    assert models_of(space)["base"].name == imported.name
    assert (space.root / "report-1.html").is_file()

    address = type_next("account add")
    ranked = serve_and_visit(space, lambda url: rank_as_a_person(url, address))
    assert ranked > 0

    type_next("round run")
    check_round(space, 2, tmp_path / "checkpoint")
    store = open_store(space)
    snapshot = space.load(find_round(store, 2).artifacts["snapshot"][-1])
    store.close()
    assert snapshot.metrics["rankings_person"] == ranked
    policy = models_of(space)["policy-2"]
    assert policy.manifest["parents"]["start"] == models_of(space)["policy-1"].name
    assert "round 2: promoted" in type_next("round status")

    type_next("model export")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "aligned").eval()
    assert type(again) is type(theirs)
    tokens = torch.randint(0, theirs.config.vocab_size, (2, 20), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        torch.testing.assert_close(sanbai.load("served")(tokens), again(tokens).logits, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(again(tokens).logits, theirs(tokens).logits, atol=0.1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "aligned")
    question = [{"role": "user", "content": "Who bakes bread?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=False)
    assert encode_prompt(sanbai.load_tokenizer("served"), question) == prompt
