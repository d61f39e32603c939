"""Simulated labelers at the front door: all answer, and a killed round ends with the labels of an undisturbed one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.serving.conftest import TEXTS, make_model

from sanbai.cli.labeling import FrontDoor, simulated_accounts
from sanbai.feedback.accounts import Account, add_account, list_api_keys
from sanbai.feedback.consent import find_consent, set_consent
from sanbai.feedback.registry import RegisteredModel, add_model, serve
from sanbai.feedback.store import Store
from sanbai.feedback.tasks import LabelTask, add_tasks, assigned_tasks
from sanbai.foundation.errors import Interrupted, ResourceError, UsageError
from sanbai.foundation.progress import SilentProgress
from sanbai.foundation.run import read_run
from sanbai.foundation.stage import Job
from sanbai.foundation.stop import StopSignal
from sanbai.foundation.workspace import Workspace
from sanbai.generation.sampling import Sampling
from sanbai.rounds.material import WorldMaterial
from sanbai.rounds.recipe import Recipe
from sanbai.rounds.snapshot import freeze_snapshot
from sanbai.rounds.tasks import LabelRecipe
from sanbai.serving.recipe import ServeRecipe
from sanbai.text.tokenizer import Tokenizer, train_tokenizer
from sanbai.world.labeler_client import LabelerClient
from sanbai.world.prompts import Prompt

LABEL = LabelRecipe(
    num_prompts=8,
    num_heldout_prompts=2,
    num_labelers=6,
    num_judge_labelers=1,
    num_heldout_labelers=2,
    rankings_per_heldout_prompt=2,
)
MATERIAL = WorldMaterial(Recipe(label=LABEL))
NAMES = [labeler.name for labeler in MATERIAL.labelers]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS * 20, vocab_size=320)


@dataclass
class House:
    """A workspace whose model serves, with tasks for everybody."""

    job: Job
    store: Store
    accounts: dict[str, Account]

    def label(self) -> None:
        sampling = Sampling(temperature=1.0, max_new_tokens=8)
        FrontDoor(self.job, self.store, ServeRecipe(sampling=sampling), MATERIAL)(1, self.accounts)

    def num_waiting(self) -> int:
        return sum(len(assigned_tasks(self.store, account, limit=100)) for account in self.accounts.values())


def open_house(folder: Path, tokenizer: Tokenizer) -> House:
    workspace = Workspace(folder)
    workspace.create()
    store = Store(workspace.database_url)
    store.create()
    add_model(store, RegisteredModel("supervised", "supervised", make_model(workspace, tokenizer, 0), round=1))
    serve(store, "supervised", round=1, actor="test")
    accounts = simulated_accounts(store, NAMES)
    tasks = [
        LabelTask(tuple(prompt.messages), ("I do not know.", prompt.truth.good[0]), prompt.kind, round=1)
        for prompt in MATERIAL.judged_prompts("label", LABEL.num_prompts)
    ]
    add_tasks(store, tasks, assignees={task.id: list(accounts.values()) for task in tasks})
    return House(Job(workspace, SilentProgress(), StopSignal()), store, accounts)


@pytest.fixture
def house(tmp_path: Path, tokenizer: Tokenizer) -> Iterator[House]:
    made = open_house(tmp_path / "house", tokenizer)
    yield made
    made.store.close()


def test_labels_of_a_killed_round_come_out_as_an_undisturbed_ones(
    house: House, tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.label()
    whole = freeze_snapshot(house.job, house.store, seed=1, round=1)
    assert house.num_waiting() == 0
    assert whole.metrics["rankings"] == len(NAMES) * LABEL.num_prompts
    assert whole.metrics["thumbs"] == whole.metrics["draft_choices"] == len(NAMES) / 2

    disturbed = open_house(tmp_path / "disturbed", tokenizer)
    converse, spoken = LabelerClient.converse, []

    def dies_late(self: LabelerClient, prompt: Prompt, *, drafts: int = 1) -> list[str]:
        answers = converse(self, prompt, drafts=drafts)
        spoken.append(self.labeler.name)
        if len(spoken) == 3:
            raise ResourceError("pulled the plug")
        return answers

    with monkeypatch.context() as patch:
        patch.setattr(LabelerClient, "converse", dies_late)
        with pytest.raises(ResourceError, match="pulled the plug"):
            disturbed.label()
    assert read_run(disturbed.job.workspace.runs / "label-1")["state"] == "failed"
    disturbed.label()
    again = freeze_snapshot(disturbed.job, disturbed.store, seed=1, round=1)
    assert again.name == whole.name
    assert [again.file(name).read_bytes() for name in again.manifest["files"]] == [
        whole.file(name).read_bytes() for name in whole.manifest["files"]
    ]
    run = read_run(disturbed.job.workspace.runs / "label-1")
    assert (run["stage"], run["state"]) == ("label", "done")
    disturbed.store.close()


def test_no_key_outlives_the_work_even_when_it_fails(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: LabelerClient) -> None:
        raise ResourceError("busy")

    monkeypatch.setattr(LabelerClient, "label_all", fails)
    with pytest.raises(ResourceError, match="busy"):
        house.label()
    assert [key for account in house.accounts.values() for key in list_api_keys(house.store, account)] == []


def test_a_stop_leaves_what_is_answered_and_says_stopped(house: House) -> None:
    house.job.stop.request()
    with pytest.raises(Interrupted):
        house.label()
    assert read_run(house.job.workspace.runs / "label-1")["state"] == "stopped"
    assert house.num_waiting() == len(NAMES) * LABEL.num_prompts


def test_simulated_accounts_are_made_once_and_keep_what_was_decided_of_their_consent(house: House) -> None:
    first = house.accounts[NAMES[0]]
    set_consent(house.store, first, granted=False)
    assert simulated_accounts(house.store, NAMES) == house.accounts
    assert find_consent(house.store, first) is False


def test_a_person_with_a_simulated_labelers_name_is_never_taken_for_one(house: House) -> None:
    add_account(house.store, "labeler-2-01", "labeler")
    with pytest.raises(UsageError, match="labeler-2-01: a person has the name of a simulated labeler"):
        simulated_accounts(house.store, ["labeler-2-01"])
