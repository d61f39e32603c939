from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sanbai.data.rankings import Ranking
from sanbai.feedback.accounts import Account, add_account, find_account
from sanbai.feedback.consent import set_consent
from sanbai.feedback.conversations import add_message, delete_conversation, list_conversations, open_conversation
from sanbai.feedback.demonstrations import add_demonstration
from sanbai.feedback.generations import Ending, Plan, begin_generations, end_generation
from sanbai.feedback.labels import Answer, Rating, add_answers
from sanbai.feedback.reactions import Thumb, add_thumb, choose_draft
from sanbai.feedback.registry import RegisteredModel, add_model
from sanbai.feedback.snapshots import count_items, freeze, labels_of, models_touched_by, record_snapshot
from sanbai.feedback.store import Store
from sanbai.feedback.tasks import LabelTask, add_tasks
from sanbai.foundation.errors import UsageError
from sanbai.foundation.files import canonical_json

TASKS = [
    LabelTask(({"role": "user", "content": f"question {number}"},), ("a", "b", "c"), "chat", round=1 + number // 3)
    for number in range(6)
]


def talk(store: Store, owner: Account, question: str) -> tuple[str, str]:
    """Let someone ask for two drafts, choose one and like one; returns the ids of conversation and first draft."""
    place = open_conversation(store, owner)
    asked = add_message(store, owner, place, content=question)
    drafts = begin_generations(store, asked, [Plan("ppo-1", {}, seed, 4) for seed in (1, 2)], drafts=True)
    for draft in drafts:
        end_generation(store, draft, f"{question} draft {draft.position}", Ending("done", "stop", 3, 0.1))
    add_thumb(store, owner, drafts[0].message_id, Thumb(1, "correct"))
    choose_draft(store, owner, drafts[0].draft_pair_id, 1)
    return place, drafts[0].message_id


def fill(url: str, seed: int) -> Store:
    """Give the same feedback in an order that the seed decides."""
    store = Store(url)
    store.create()
    people = [add_account(store, name, "labeler", source="simulated") for name in ("anna", "bert", "carl")]
    add_model(store, RegisteredModel("ppo-1", "policy", "model-1", round=1))
    for person in people[:2]:
        set_consent(store, person, granted=True)
    add_tasks(store, TASKS, assignees={task.id: people for task in TASKS})
    work = [(person, task) for person in people for task in TASKS]
    deeds = [
        lambda person=person, task=task: add_answers(
            store,
            person,
            [Answer(task.id, ((0,), (1, 2)), tuple(Rating(place, 4) for place in range(3)))],
        )
        for person, task in work
    ]
    deeds += [lambda person=person: talk(store, person, "Who bakes?") for person in people for _ in range(2)]
    deeds += [
        lambda person=person: add_demonstration(
            store, person, [{"role": "user", "content": "Sum 1 and 2."}, {"role": "assistant", "content": "3"}]
        )
        for person in people
    ]
    random.Random(seed).shuffle(deeds)
    for deed in deeds:
        deed()
    return store


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Store]:
    made = fill(f"sqlite:///{tmp_path / 'full.db'}", 0)
    yield made
    made.close()


def content(store: Store, up_to_round: int = 9) -> str:
    frozen = freeze(store, up_to_round=up_to_round)
    return canonical_json(
        [frozen.rankings, frozen.thumbs, frozen.draft_choices, frozen.conversations, frozen.demonstrations]
    )


def test_the_same_feedback_in_another_order_gives_the_same_bytes(tmp_path: Path) -> None:
    contents = {content(fill(f"sqlite:///{tmp_path / f'{seed}.db'}", seed)) for seed in range(3)}
    assert len(contents) == 1
    assert '"created"' not in contents.pop()


def test_rankings_are_records_of_the_ranking_format(full: Store) -> None:
    rows = freeze(full, up_to_round=9).rankings
    assert [row["id"] for row in rows] == sorted(f"{task.id}:{name}" for task in TASKS for name in ("anna", "bert"))
    for row in rows:
        record = Ranking.from_row(row, where="snapshot")
        assert record.buckets == ((0,), (1, 2))
        assert [rating.likert for rating in record.ratings] == [4, 4, 4]
        assert (row["kind"], row["source"], row["labeler"]) == ("chat", "simulated", row["id"].split(":")[1])


def test_only_what_consenting_people_said_is_taken(full: Store) -> None:
    frozen = freeze(full, up_to_round=9)
    for rows in (frozen.rankings, frozen.thumbs, frozen.draft_choices, frozen.conversations, frozen.demonstrations):
        assert {row["labeler"] for row in rows} == {"anna", "bert"}
    set_consent(full, find_account(full, "anna"), granted=False)
    frozen = freeze(full, up_to_round=9)
    for rows in (frozen.rankings, frozen.thumbs, frozen.draft_choices, frozen.conversations, frozen.demonstrations):
        assert {row["labeler"] for row in rows} == {"bert"}
    assert {item.account_id for item in frozen.items} == {find_account(full, "bert").id}


def test_rows_of_later_rounds_are_left_out(full: Store) -> None:
    assert {row["round"] for row in freeze(full, up_to_round=1).rankings} == {1}
    assert {row["round"] for row in freeze(full, up_to_round=2).rankings} == {1, 2}
    assert freeze(full, up_to_round=0).thumbs == []


def test_a_deleted_conversation_leaves_the_next_snapshot(full: Store) -> None:
    anna = find_account(full, "anna")
    for one in list_conversations(full, anna):
        delete_conversation(full, anna, one.id)
    frozen = freeze(full, up_to_round=9)
    for rows in (frozen.thumbs, frozen.draft_choices, frozen.conversations):
        assert {row["labeler"] for row in rows} == {"bert"}


def test_thumbs_and_choices_hold_what_was_said(full: Store) -> None:
    frozen = freeze(full, up_to_round=9)
    assert len(frozen.thumbs) == len(frozen.draft_choices) == 2  # two people; what each said twice counts once
    assert len([item for item in frozen.items if item.source == "thumb"]) == 4
    thumb, choice = frozen.thumbs[0], frozen.draft_choices[0]
    assert thumb["messages"] == choice["messages"] == [{"role": "user", "content": "Who bakes?"}]
    assert (thumb["response"], thumb["value"], thumb["model"], thumb["round"]) == ("Who bakes? draft 0", 1, "ppo-1", 1)
    assert choice["responses"] == ["Who bakes? draft 0", "Who bakes? draft 1"]
    assert choice["choice"] == 1
    assert len({row["id"] for row in frozen.thumbs}) == 2


def test_what_a_restart_cut_short_is_left_out(full: Store) -> None:
    anna = find_account(full, "anna")
    before = content(full)
    asked = add_message(full, anna, open_conversation(full, anna), content="Who bakes?")
    (cut,) = begin_generations(full, asked, [Plan("ppo-1", {}, 1, 4)])
    end_generation(full, cut, "Who ba", Ending("interrupted", "", 2, 0.1))
    assert content(full) == before


def test_labelers_who_are_asked_again_after_a_kill_change_nothing(full: Store) -> None:
    before = content(full)
    talk(full, find_account(full, "anna"), "Who bakes?")
    assert content(full) == before


def test_a_change_of_mind_counts_once(full: Store) -> None:
    anna = find_account(full, "anna")
    before = freeze(full, up_to_round=9)
    add_answers(full, anna, [Answer(TASKS[0].id, ((2,), (1,), (0,)))])
    after = freeze(full, up_to_round=9)
    assert len(after.rankings) == len(before.rankings)
    (mine,) = [row for row in after.rankings if row["id"] == f"{TASKS[0].id}:anna"]
    assert (mine["buckets"], mine["ratings"]) == ([[2], [1], [0]], [])


def test_a_task_made_of_a_persons_conversation_needs_that_persons_consent(full: Store) -> None:
    anna, carl = find_account(full, "anna"), find_account(full, "carl")
    place = list_conversations(full, carl)[0].id
    private = LabelTask(({"role": "user", "content": "private"},), ("x", "y"), conversation_id=place, round=1)
    add_tasks(full, [private], assignees={private.id: [anna]})
    add_answers(full, anna, [Answer(private.id, ((0,), (1,)))])
    assert private.id not in {row["id"].split(":")[0] for row in freeze(full, up_to_round=9).rankings}
    set_consent(full, carl, granted=True)
    assert private.id in {row["id"].split(":")[0] for row in freeze(full, up_to_round=9).rankings}


def test_lineage_answers_both_questions(full: Store) -> None:
    frozen = freeze(full, up_to_round=9)
    record_snapshot(full, "snapshot-1", frozen)
    record_snapshot(full, "snapshot-1", frozen)
    add_model(full, RegisteredModel("reward-1", "reward", "model-2", "", 1, ("snapshot-1",)))
    add_model(full, RegisteredModel("ppo-2", "policy", "model-3", "reward-1", 2))
    add_model(full, RegisteredModel("unrelated", "base", "model-4"))
    assert labels_of(full, "ppo-2") == labels_of(full, "reward-1") == frozen.items
    assert labels_of(full, "unrelated") == []
    assert models_touched_by(full, find_account(full, "anna").id) == ["ppo-2", "reward-1"]
    assert models_touched_by(full, find_account(full, "carl").id) == []


def test_a_model_s_rankings_are_counted_apart_and_lead_back_to_the_people_who_taught_it(full: Store) -> None:
    record_snapshot(full, "snapshot-1", freeze(full, up_to_round=9))
    add_model(full, RegisteredModel("reward-1", "reward", "model-2", "", 1, ("snapshot-1",)))
    with pytest.raises(UsageError, match="not an account name"):
        add_account(full, "model:model-2", "labeler")
    teacher = add_account(full, "model:model-2", "labeler", source="model")
    set_consent(full, teacher, granted=True)
    before = {row["id"] for row in freeze(full, up_to_round=9).rankings}
    task = LabelTask(({"role": "user", "content": "What is new?"},), ("x", "y"), round=2)
    add_tasks(full, [task], assignees={task.id: [teacher]})
    add_answers(full, teacher, [Answer(task.id, ((1,), (0,)))])
    frozen = freeze(full, up_to_round=9)
    (new,) = [row for row in frozen.rankings if row["id"] not in before]
    assert (new["labeler"], new["source"]) == ("model:model-2", "model")
    assert count_items(full, frozen.items)["rankings"]["model"] == 1

    (mine,) = [item for item in frozen.items if item.account_id == teacher.id]
    record_snapshot(full, "snapshot-2", replace(frozen, items=[mine]))
    add_model(full, RegisteredModel("reward-2", "reward", "model-5", "", 2, ("snapshot-2",)))
    assert models_touched_by(full, teacher.id) == ["reward-2"]
    assert models_touched_by(full, find_account(full, "anna").id) == ["reward-1", "reward-2"]
    assert models_touched_by(full, find_account(full, "carl").id) == []
