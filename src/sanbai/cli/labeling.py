"""Simulated labelers at the front door: accounts of their own, keys, a server on loopback, requests like anybody's."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sanbai.feedback.accounts import (
    Account,
    add_account,
    list_accounts,
    list_api_keys,
    make_api_key,
    revoke_api_key,
)
from sanbai.feedback.consent import find_consent, set_consent
from sanbai.feedback.store import Store
from sanbai.foundation.run import read_run, write_run
from sanbai.foundation.stage import Job
from sanbai.rounds.material import WorldMaterial
from sanbai.rounds.panel import Panel
from sanbai.serving.app import create_app
from sanbai.serving.recipe import ServeRecipe
from sanbai.serving.server import loopback_server
from sanbai.serving.welcome import Welcome
from sanbai.world.labeler_client import LabelerClient, PromptBook
from sanbai.world.labelers import SimulatedLabeler
from sanbai.world.prompts import Prompt

#: Labelers at work at once.
NUM_THREADS = 4


def simulated_accounts(store: Store, panel: Panel) -> dict[str, Account]:
    """Return the panel's accounts by name, made where they are missing; their rows may train."""
    known = {account.name: account for account in list_accounts(store)}
    accounts = {
        name: known.get(name) or add_account(store, name, "labeler", source="simulated") for name in panel.everyone
    }
    for account in accounts.values():
        if not find_consent(store, account):
            set_consent(store, account, granted=True)
    return accounts


@dataclass(frozen=True)
class FrontDoor:
    """A `rounds.turn.Collect`: lets the simulated labelers answer a round's tasks over HTTP."""

    job: Job
    store: Store
    serve: ServeRecipe
    material: WorldMaterial

    def __call__(self, round: int, accounts: Mapping[str, Account]) -> None:  # noqa: A002 - the field's own word
        """Serve on a free port until every labeler has answered; its time is kept in `runs/label-<round>/`."""
        folder = self.job.workspace.runs / f"label-{round}"
        folder.mkdir(parents=True, exist_ok=True)
        before = read_run(folder)["seconds"] if (folder / "run.json").exists() else 0.0
        started = time.monotonic()
        write_run(folder, stage="label", state="running", started=time.strftime("%Y-%m-%dT%H:%M:%S%z"), seconds=before)
        try:
            self._label(round, accounts)
        finally:
            write_run(folder, state="stopped", seconds=round_seconds(before, started))
        write_run(folder, state="done")

    def _label(self, number: int, accounts: Mapping[str, Account]) -> None:
        keys = {name: make_api_key(self.store, account, ("api",)) for name, account in accounts.items()}
        asked = self._asked(number)
        workers = [labeler for labeler in self.material.labelers if labeler.name in accounts]
        app = create_app(self.job.workspace, self.store, settings=self.serve, welcome=Welcome("Labeling"))
        bar = self.job.progress.task("label", len(workers))
        with loopback_server(app) as url, ThreadPoolExecutor(NUM_THREADS) as pool:

            def work(place: int, labeler: SimulatedLabeler) -> None:
                self.job.stop.raise_if_set()
                book = PromptBook.of(asked)
                with LabelerClient(url, keys[labeler.name], labeler, book) as client:
                    client.label_all()
                    client.converse(_single_turn(asked)[place], drafts=1 + place % 2)

            futures = [pool.submit(work, place, labeler) for place, labeler in enumerate(workers)]
            for done, future in enumerate(futures, start=1):
                future.result()
                bar.advance(done)
        bar.finish()
        for account in accounts.values():
            for key in list_api_keys(self.store, account):
                revoke_api_key(self.store, key)

    def _asked(self, number: int) -> list[Prompt]:
        label = self.material.recipe.label
        return [
            *self.material.judged_prompts("label", label.num_prompts, round=number),
            *self.material.judged_prompts("label-heldout", label.num_heldout_prompts, round=number),
        ]


def round_seconds(before: float, started: float) -> float:
    """Return the seconds worked so far, those before a kill included."""
    return round(before + time.monotonic() - started, 3)


def _single_turn(prompts: list[Prompt]) -> list[Prompt]:
    return [prompt for prompt in prompts if len(prompt.messages) == 1]
