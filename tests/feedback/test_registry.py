from __future__ import annotations

import pytest

from sanbai.feedback import registry
from sanbai.feedback.registry import (
    RegisteredModel,
    RoundEvent,
    add_model,
    add_round_artifact,
    add_round_event,
    current_round,
    find_model,
    find_round,
    list_deployments,
    list_models,
    list_rounds,
    model_lineage,
    rollback,
    serve,
    served,
)
from sanbai.feedback.store import Store
from sanbai.foundation.errors import UnknownNameError, UsageError

BASE = RegisteredModel("base", "base", "model-0")
TUTORED = RegisteredModel("supervised", "supervised", "model-1", "base", 1)
FIRST = RegisteredModel("ppo-1", "policy", "model-2", "supervised", 1, ("snapshot-1",))
SECOND = RegisteredModel("ppo-2", "policy", "model-3", "supervised", 2, ("snapshot-1", "snapshot-2"))


@pytest.fixture
def models(store: Store) -> None:
    for model in (BASE, TUTORED, FIRST, SECOND):
        add_model(store, model)


@pytest.mark.usefixtures("models")
def test_models_know_where_they_come_from(store: Store) -> None:
    assert list_models(store) == [BASE, TUTORED, FIRST, SECOND]
    assert find_model(store, "ppo-2") == SECOND
    assert model_lineage(store, "ppo-2") == [SECOND, TUTORED, BASE]
    add_model(store, FIRST)
    with pytest.raises(UsageError, match="another model has this name"):
        add_model(store, RegisteredModel("ppo-1", "policy", "model-9"))
    with pytest.raises(UnknownNameError, match="nobody: no such model"):
        add_model(store, RegisteredModel("orphan", "policy", "model-9", "nobody"))


def test_models_stay_in_the_order_of_registration_while_the_clock_stands_or_goes_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter((5_000, 5_000, 5_000, 4_000))
    monkeypatch.setattr(registry, "now_ms", lambda: next(moments))
    named = [RegisteredModel(name, "base", f"model-{name}") for name in ("delta", "alpha", "charlie", "bravo")]
    for model in named:
        add_model(store, model)
    assert list_models(store) == named


@pytest.mark.usefixtures("models")
def test_rollback_within_a_round_leaves_the_round_rolled_back(store: Store) -> None:
    serve(store, "supervised", round=1, actor="gate", reason="the first model")
    serve(store, "ppo-1", round=1, actor="gate")
    assert rollback(store, actor="anna").model == "supervised"
    assert find_round(store, 1).state == "rolled_back"


@pytest.mark.usefixtures("models")
def test_rollback_goes_back_one_model_at_a_time_and_stays_on_record(store: Store) -> None:
    assert served(store) is None
    with pytest.raises(UsageError, match="nothing to roll back to"):
        rollback(store, actor="anna")
    for name, number in (("supervised", 0), ("ppo-1", 1), ("ppo-2", 2)):
        serve(store, name, round=number, actor="gate")
    seen = []
    for _ in range(2):
        rollback(store, actor="anna", reason="worse")
        now = served(store)
        assert now is not None
        seen.append(now.model)
    assert seen == ["ppo-1", "supervised"]
    with pytest.raises(UsageError, match="nothing to roll back to"):
        rollback(store, actor="anna")
    assert [(row.kind, row.model) for row in list_deployments(store)] == [
        ("promote", "supervised"),
        ("promote", "ppo-1"),
        ("promote", "ppo-2"),
        ("rollback", "ppo-1"),
        ("rollback", "supervised"),
    ]
    assert [find_round(store, n).state for n in (0, 1, 2)] == ["serving", "rolled_back", "rolled_back"]


@pytest.mark.usefixtures("models")
def test_an_override_needs_a_reason_and_keeps_it(store: Store) -> None:
    with pytest.raises(UsageError, match="needs a reason"):
        serve(store, "ppo-1", round=1, actor="anna", kind="override")
    serve(store, "ppo-1", round=1, actor="anna", reason="the gate is too strict", kind="override")
    now = served(store)
    assert now is not None
    assert (now.kind, now.reason) == ("override", "the gate is too strict")


def test_a_model_that_is_not_registered_cannot_serve(store: Store) -> None:
    with pytest.raises(UnknownNameError, match="ghost: no such model"):
        serve(store, "ghost", round=1, actor="gate")
    assert served(store) is None


def test_a_round_is_the_newest_of_its_events(store: Store) -> None:
    assert current_round(store) == 0
    add_round_event(store, 1, RoundEvent("snapshot"))
    add_round_event(store, 1, RoundEvent("refused", "gate", "no better", {"passed": False}))
    add_round_artifact(store, 1, "report", "report-1")
    add_round_artifact(store, 1, "report", "report-1")
    (found,) = list_rounds(store)
    assert [event.state for event in found.events] == ["open", "snapshot", "refused"]
    assert (found.state, found.verdict, found.artifacts) == ("refused", {"passed": False}, {"report": ("report-1",)})
    assert current_round(store) == 1
    with pytest.raises(UnknownNameError, match="round 7"):
        find_round(store, 7)
