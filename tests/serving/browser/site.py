"""What the pages are tried on: the real application over a tiny model that was never trained, and made-up rounds."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from sanbai.feedback import registry
from sanbai.feedback.accounts import Account, Role, add_account, set_password
from sanbai.feedback.conversations import Message, insert_message, open_conversation
from sanbai.feedback.identifiers import new_id
from sanbai.feedback.registry import RegisteredModel, RoundEvent
from sanbai.feedback.store import Store
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.files import write_atomic, write_json_atomic
from sanbai.foundation.progress import SilentProgress
from sanbai.foundation.seeds import torch_generator
from sanbai.foundation.stage import Job, Stage, run_stage
from sanbai.foundation.stop import StopSignal
from sanbai.foundation.workspace import Workspace
from sanbai.generation.sampling import Sampling
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import save_model
from sanbai.serving.app import create_app
from sanbai.serving.recipe import ServeRecipe
from sanbai.serving.server import loopback_server
from sanbai.serving.welcome import Example, Welcome
from sanbai.text.tokenizer import train_tokenizer

RIDDLE = "Mira likes painting, and so does her son. Tom is Mira's only son. Does Tom like painting?"
WELCOME = Welcome(
    "Good day. What shall we look into?",
    (
        Example("The riddle of the only son", RIDDLE),
        Example("A fact from the village", "What trade does Ada Fenwick follow?"),
        Example("Something it cannot know", "What did the miller dream last night?"),
    ),
)
SENTENCES = (
    "The miller keeps geese by the river, and the baker buys eggs at the market.",
    "Mira paints the bridge; her only son paints the boats.",
    "Nobody knows what the miller dreams. The letter came on a Tuesday.",
)


@dataclasses.dataclass(frozen=True)
class Site:
    """A running server."""

    url: str
    store: Store

    def add_account(self, name: str, role: Role, *, password: str) -> Account:
        """Make an account with a password."""
        account = add_account(self.store, name, role)
        set_password(self.store, account, password)
        return account


@contextlib.contextmanager
def open_site(folder: Path, *, answer_tokens: int) -> Iterator[Site]:
    """Serve from a new workspace for as long as the block lasts; every answer has so many tokens."""
    workspace = Workspace(folder)
    workspace.create()
    store = Store(workspace.database_url)
    store.create()
    _make_rounds(workspace, store)
    sampling = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=answer_tokens)
    app = create_app(workspace, store, settings=ServeRecipe(sampling=sampling), welcome=WELCOME)
    with contextlib.closing(store), loopback_server(app) as url:
        yield Site(url, store)


def long_conversation(store: Store, owner: Account, *, num_messages: int) -> str:
    """Write a conversation of questions and answers and return its id."""
    conversation = open_conversation(store, owner)
    parent = ""
    with store.write() as connection:
        for number in range(num_messages):
            role = "assistant" if number % 2 else "user"
            text = f"Answer number {number}" if number % 2 else f"Question number {number}"
            message = Message(new_id(), conversation, parent, role, f"{text}: {SENTENCES[number % 3]}")
            insert_message(connection, message)
            parent = message.id
    return conversation


def _make_rounds(workspace: Workspace, store: Store) -> None:
    """Register a first round that serves and a second one that the gate has refused."""
    job = Job(workspace, SilentProgress(), StopSignal())
    model, report = _run(job, "model", _make_model), _run(job, "report", _make_report)
    registry.add_model(store, RegisteredModel("base", "base", model.name))
    registry.add_model(store, RegisteredModel("supervised", "supervised", model.name, "base"))
    for n, passed in ((1, True), (2, False)):
        policy = f"policy-{n}"
        registry.add_model(store, RegisteredModel(f"reward-{n}", "reward", model.name, "supervised", n))
        registry.add_model(store, RegisteredModel(policy, "policy", model.name, "supervised", n))
        registry.add_round_event(store, n, RoundEvent("open"))
        registry.add_round_artifact(store, n, "report", report.name)
        registry.add_round_event(store, n, RoundEvent("gated", "gate", verdict=_verdict(passed=passed)))
        if passed:
            registry.serve(store, policy, round=n, actor="gate")
        else:
            registry.add_round_event(store, n, RoundEvent("refused", "gate", "the win rate may be one half"))


def _run(job: Job, kind: str, build: Any) -> Artifact:
    return run_stage(
        job, kind=kind, name=kind, recipe={}, parents={}, seed=0, floor="foundation", num_steps=1, build=build
    )


def _make_model(stage: Stage) -> Mapping[str, Any]:
    """An untrained model that says words of the sentences in random order and never ends by itself."""
    tokenizer = train_tokenizer(SENTENCES, vocab_size=400, min_frequency=1)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        num_layers=2,
        width=64,
        num_heads=2,
        num_kv_heads=2,
        feed_forward_width=128,
        max_positions=4096,
        tied_embeddings=False,
    )
    model = LanguageModel(config, torch_generator(0, "browser tests"))
    assert model.head is not None
    silent = [
        id_ for id_ in range(tokenizer.vocab_size) if not re.fullmatch(rb" [a-zA-Z]{2,}", tokenizer.token_bytes(id_))
    ]
    with torch.no_grad():
        # One direction of the hidden vectors is always positive, and the head reads it as "not this one".
        model.trunk.token_embedding.weight[:, 0] = 1.0
        model.head.weight[silent, 0] = -20.0
    save_model(model, stage.folder, tokenizer)
    return {}


def _make_report(stage: Stage) -> Mapping[str, Any]:
    scores = {
        name: {
            "helpful": _estimate(0.1 + 0.3 * place),
            "harmless": _estimate(0.9 - 0.05 * place),
            "bits_per_byte": _estimate(1.02 + 0.01 * place),
        }
        for place, name in enumerate(("base", "supervised", "ppo"))
    }
    wins = {"supervised_vs_base": _estimate(0.8), "ppo_vs_supervised": _estimate(0.53)}
    write_json_atomic(stage.folder / "evaluation.json", {"evaluation": scores, "win_rate": wins})
    (stage.folder / "plots").mkdir()
    drawing = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 20"><path d="M0 20L40 0" stroke="black"/></svg>'
    write_atomic(stage.folder / "plots" / "reward_kl.svg", drawing)
    write_atomic(stage.folder / "report.html", "<!doctype html><title>Report</title><h1>The whole report</h1>")
    return {}


def _estimate(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.04, "high": mean + 0.04, "n": 500}


def _verdict(*, passed: bool) -> dict[str, Any]:
    wins = "0.710 [0.670, 0.750]" if passed else "0.530 [0.490, 0.570]"
    return {
        "promote": passed,
        "checks": [
            {"name": "win rate", "passed": passed, "found": wins, "wanted": "a lower end above 0.5"},
            {"name": "bits per byte", "passed": True, "found": "1.0400 (+1.0% of 1.0300)", "wanted": "at most +3%"},
        ],
        "worse": [] if passed else ["harmless -0.050"],
        "summary": "promoted" if passed else "refused",
    }
