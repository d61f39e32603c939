"""Simulated labelers at the front door: accounts of their own, keys, a server on loopback, requests like anybody's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from sanbai.foundation.errors import Interrupted, UsageError
from sanbai.foundation.files import explain_disk_errors
from sanbai.foundation.run import Clock
from sanbai.foundation.stage import Job
from sanbai.rounds.material import WorldMaterial
from sanbai.serving.app import create_app
from sanbai.serving.recipe import ServeRecipe
from sanbai.serving.server import loopback_server
from sanbai.serving.welcome import Welcome
from sanbai.world.labeler_client import LabelerClient, PromptBook
from sanbai.world.labelers import SimulatedLabeler
from sanbai.world.prompts import Prompt

#: Labelers at work at once.
NUM_THREADS = 4
#: One answer at a time, read whole: a round that was killed then makes the same answers, to the bit, when it goes on.
REPEATABLE = {"max_running": 1, "prefix_cache": False}


def simulated_accounts(store: Store, names: Iterable[str]) -> dict[str, Account]:
    """Return the accounts of simulated labelers by name, made where they are missing; their rows may train.

    Raises:
        UsageError: a person has one of the names.
    """
    known = {account.name: account for account in list_accounts(store)}
    accounts = {name: known.get(name) or add_account(store, name, "labeler", source="simulated") for name in names}
    for account in accounts.values():
        if account.source != "simulated":
            raise UsageError(f"{account.name}: a person has the name of a simulated labeler; use another seed")
        if find_consent(store, account) is None:
            set_consent(store, account, granted=True)
    return accounts


@dataclass(frozen=True)
class FrontDoor:
    """Lets the simulated labelers answer a round's tasks over HTTP; `rounds.turn.Asked.collect` calls it."""

    job: Job
    store: Store
    serve: ServeRecipe
    material: WorldMaterial

    def __call__(self, round: int, accounts: Mapping[str, Account]) -> None:  # noqa: A002 - the field's own word
        """Serve on a free port until every labeler has answered; its time is kept in `runs/label-<round>/`.

        A labeler who is asked again after a kill skips what is answered, and says in conversation what it said before.

        Raises:
            Interrupted: asked to stop.
            ResourceError: the server refuses or stays busy.
        """
        folder = self.job.workspace.runs / f"label-{round}"
        with explain_disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        clock = Clock(folder, "label")
        try:
            self._label(round, accounts)
        except BaseException as error:
            clock.stop("stopped" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed")
            raise
        clock.stop("done")

    def _label(self, number: int, accounts: Mapping[str, Account]) -> None:
        asked = self._asked(number)
        book = PromptBook.of(asked)
        single_turn = [prompt for prompt in asked if len(prompt.messages) == 1]
        workers = [labeler for labeler in self.material.labelers if labeler.name in accounts]
        keys = {name: make_api_key(self.store, account, ("api",)) for name, account in accounts.items()}
        app = create_app(
            self.job.workspace,
            self.store,
            settings=self.serve.model_copy(update=REPEATABLE),
            welcome=Welcome("Labeling"),
        )
        bar = self.job.progress.task("label", len(workers))
        try:
            with loopback_server(app) as url, ThreadPoolExecutor(NUM_THREADS) as pool:

                def work(place: int, labeler: SimulatedLabeler) -> None:
                    self.job.stop.raise_if_set()
                    with LabelerClient(url, keys[labeler.name], labeler, book) as client:
                        client.label_all()
                        if single_turn:
                            client.converse(single_turn[place % len(single_turn)], drafts=1 + place % 2)

                futures = [pool.submit(work, place, labeler) for place, labeler in enumerate(workers)]
                try:
                    for done, future in enumerate(futures, start=1):
                        future.result()
                        bar.advance(done)
                finally:
                    pool.shutdown(wait=False, cancel_futures=True)
        finally:
            for account in accounts.values():
                for key in list_api_keys(self.store, account):
                    revoke_api_key(self.store, key)
        bar.finish()

    def _asked(self, number: int) -> list[Prompt]:
        label = self.material.recipe.label
        return [
            *self.material.judged_prompts("label", label.num_prompts, round=number),
            *self.material.judged_prompts("label-heldout", label.num_heldout_prompts, round=number),
        ]
