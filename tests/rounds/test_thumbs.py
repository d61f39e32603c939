"""Thumbs on their way from the chat to a model: consent, deletion, changes of mind, and who only measures."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.rounds.test_snapshot import open_job

from sanbai.feedback.accounts import Account, add_account
from sanbai.feedback.consent import set_consent
from sanbai.feedback.conversations import add_message, delete_conversation, open_conversation
from sanbai.feedback.generations import Ending, Plan, begin_generations, end_generation
from sanbai.feedback.reactions import Thumb, add_thumb
from sanbai.feedback.snapshots import snapshot_items
from sanbai.feedback.store import Store
from sanbai.foundation.errors import UsageError
from sanbai.rounds.material import WorldMaterial
from sanbai.rounds.panel import split_panel
from sanbai.rounds.pipeline import Pipeline
from sanbai.rounds.recipe import Recipe
from sanbai.rounds.snapshot import freeze_snapshot
from sanbai.rounds.thumbs import FrozenThumbs, find_thumbs

WHOLE = Ending("done", "stop", 3, 0.1)
RECIPE = Recipe()


@pytest.fixture
def pipeline_and_store(tmp_path: Path) -> tuple[Pipeline, Store]:
    job, store = open_job(tmp_path)
    return Pipeline(job, RECIPE, WorldMaterial(RECIPE)), store


def person(store: Store, name: str, *, consents: bool = True, source: str = "person") -> Account:
    account = add_account(store, name, "user" if source == "person" else "labeler", source=source)
    set_consent(store, account, granted=consents)
    return account


def talk(store: Store, owner: Account, number: int, value: int, ending: Ending = WHOLE) -> tuple[str, str]:
    """Let someone ask and give the answer a thumb; returns the ids of conversation and answer."""
    place = open_conversation(store, owner)
    asked = add_message(store, owner, place, content=f"question {number}")
    (answer,) = begin_generations(store, asked, [Plan("supervised", {}, 1, 4)])
    end_generation(store, answer, f"answer {number}", ending)
    add_thumb(store, owner, answer.message_id, Thumb(value))
    return place, answer.message_id


def said(found: FrozenThumbs) -> list[tuple[str, int]]:
    return sorted((thumb.response, thumb.value) for thumb in found.answers)


def test_newest_thumbs_of_those_who_agree_on_living_whole_answers_may_be_learned_from(
    pipeline_and_store: tuple[Pipeline, Store],
) -> None:
    pipeline, store = pipeline_and_store
    ada, bert = person(store, "ada"), person(store, "bert", consents=False)
    talk(store, ada, 1, 1)
    _, changed = talk(store, ada, 2, 1)
    add_thumb(store, ada, changed, Thumb(-1))
    gone, _ = talk(store, ada, 3, 1)
    delete_conversation(store, ada, gone)
    talk(store, ada, 4, 1, Ending("stopped", "", 3, 0.1))
    talk(store, ada, 5, 1, Ending("done", "length", 3, 0.1))
    talk(store, bert, 6, 1)
    found = find_thumbs(pipeline, store)
    assert said(found) == [("answer 1", 1), ("answer 2", -1)]
    assert found.answers[0].messages[-1]["role"] == "user"
    # The snapshot holds what was cut off too, names every row, and is the same when it is asked for again.
    items = snapshot_items(store, found.snapshot.name)
    assert {item.source for item in items} == {"thumb"}
    assert {item.account_id for item in items} == {ada.id}
    assert (found.snapshot.metrics["thumbs"], len(items)) == (4, 4)
    assert find_thumbs(pipeline, store).snapshot.name == found.snapshot.name
    assert freeze_snapshot(pipeline.job, store, seed=1, round=1).name != found.snapshot.name

    set_consent(store, bert, granted=True)
    assert said(find_thumbs(pipeline, store)) == [("answer 1", 1), ("answer 2", -1), ("answer 6", 1)]
    set_consent(store, ada, granted=False)
    assert said(find_thumbs(pipeline, store)) == [("answer 6", 1)]


def test_simulated_labelers_who_teach_the_judge_or_measure_teach_no_policy(
    pipeline_and_store: tuple[Pipeline, Store],
) -> None:
    pipeline, store = pipeline_and_store
    assert isinstance(pipeline.material, WorldMaterial)
    panel = split_panel([labeler.name for labeler in pipeline.material.labelers], RECIPE.label)
    for number, name in enumerate((panel.training[0], panel.judge[0], panel.heldout[0])):
        talk(store, person(store, name, source="simulated"), number, 1)
    assert said(find_thumbs(pipeline, store)) == [("answer 0", 1)]


def test_without_thumbs_that_may_be_learned_from_there_is_one_clear_line(
    pipeline_and_store: tuple[Pipeline, Store],
) -> None:
    pipeline, store = pipeline_and_store
    talk(store, person(store, "ada"), 1, 1, Ending("done", "length", 3, 0.1))
    with pytest.raises(UsageError, match=r"none of 1 thumbs may be learned from; let people who agree to it .* chat"):
        find_thumbs(pipeline, store)
