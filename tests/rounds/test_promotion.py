"""Promotion by hand: what the gate allowed, what it refused, and what cannot be decided yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanbai.feedback.registry import (
    RegisteredModel,
    RoundEvent,
    add_model,
    add_round_event,
    list_deployments,
    serve,
    served,
)
from sanbai.feedback.store import Store
from sanbai.foundation.errors import UnknownNameError, UsageError
from sanbai.rounds.promotion import promote, rollback


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store(f"sqlite:///{tmp_path / 'sanbai.db'}")
    opened.create()
    add_model(opened, RegisteredModel("supervised", "supervised", "model-0", round=1))
    serve(opened, "supervised", round=1, actor="gate")
    return opened


def judge(store: Store, number: int, *, promote: bool) -> None:
    add_model(store, RegisteredModel(f"policy-{number}", "policy", f"model-{number}", "supervised", number))
    verdict = {"promote": promote, "summary": "promoted" if promote else "refused: win rate 0.4"}
    add_round_event(store, number, RoundEvent("gated", "gate", verdict=verdict))


def served_name(store: Store) -> str:
    deployment = served(store)
    assert deployment is not None
    return deployment.model


def test_a_round_that_passed_needs_no_reason_and_can_be_rolled_back(store: Store) -> None:
    judge(store, 1, promote=True)
    promote(store, 1, actor="ada")
    assert served_name(store) == "policy-1"
    assert rollback(store, actor="ada").model == "supervised"
    promote(store, 1, actor="ada")
    assert served_name(store) == "policy-1"


@pytest.mark.parametrize("reason", ["", "   "])
def test_a_refused_round_needs_a_reason_and_says_why_it_was_refused(store: Store, reason: str) -> None:
    judge(store, 1, promote=False)
    with pytest.raises(UsageError, match=r"refused \(refused: win rate 0.4\); give --override with a reason"):
        promote(store, 1, actor="ada", override_reason=reason)
    assert served_name(store) == "supervised"


def test_an_override_stays_on_record_with_actor_and_reason(store: Store) -> None:
    judge(store, 1, promote=False)
    promote(store, 1, actor="ada", override_reason="people like it better")
    newest = list_deployments(store)[-1]
    assert (newest.kind, newest.actor, newest.reason) == ("override", "ada", "people like it better")


def test_promoting_what_serves_is_refused_so_that_one_rollback_goes_back_one_model(store: Store) -> None:
    judge(store, 1, promote=True)
    promote(store, 1, actor="ada")
    with pytest.raises(UsageError, match="policy-1 serves already"):
        promote(store, 1, actor="ada")
    assert rollback(store, actor="ada").model == "supervised"


def test_a_round_that_was_not_judged_or_does_not_exist_is_one_line(store: Store) -> None:
    add_round_event(store, 2, RoundEvent("training"))
    with pytest.raises(UsageError, match="round 2 is training, not judged yet"):
        promote(store, 2, actor="ada")
    with pytest.raises(UnknownNameError, match="round 7: no such round"):
        promote(store, 7, actor="ada")
