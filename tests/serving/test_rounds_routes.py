from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.serving.conftest import Site, make_artifact, running_site

from sanbai.feedback.accounts import add_account
from sanbai.feedback.consent import set_consent
from sanbai.feedback.labels import Answer, add_answers
from sanbai.feedback.registry import RegisteredModel, RoundEvent, add_model, add_round_artifact, add_round_event, served
from sanbai.feedback.snapshots import freeze, record_snapshot
from sanbai.feedback.tasks import LabelTask, add_tasks
from sanbai.text.tokenizer import Tokenizer

ESTIMATE = {"mean": 0.6, "low": 0.5, "high": 0.7, "n": 500}
EVALUATION = {
    "evaluation": {
        name: {
            axis: ESTIMATE | {"mean": 0.1 * number}
            for axis in ("helpful", "honest", "harmless", "gold_utility", "bits_per_byte")
        }
        for number, name in enumerate(("base", "supervised", "ppo"))
    },
    "win_rate": {"supervised_vs_base": ESTIMATE, "ppo_vs_supervised": ESTIMATE | {"mean": 0.55}},
}
REFUSED = {
    "promote": False,
    "checks": [
        {"name": "win rate", "passed": False, "found": "0.49", "wanted": "a lower end above 0.5"},
        {"name": "honest", "passed": True, "found": "+0.1", "wanted": "0"},
    ],
    "worse": ["kind chat -0.2"],
}


@pytest.fixture
def place(tmp_path: Path, tokenizer: Tokenizer) -> Iterator[Site]:
    """Round 0 serves model-0; round 1 made model-1 and was refused; its report is there."""
    with running_site(tmp_path, tokenizer, models=2) as made:
        store = made.store
        report = make_artifact(
            made.workspace,
            "report",
            "0123456789ab",
            {
                "evaluation.json": json.dumps(EVALUATION),
                "report.html": "<h1>Report</h1><script>alert(1)</script>",
                "plots/reward_against_kl.svg": "<svg xmlns='http://www.w3.org/2000/svg'/>",
            },
        )
        people = [add_account(store, name, "labeler", source=source) for name, source in PEOPLE]  # type: ignore[arg-type]
        task = LabelTask(({"role": "user", "content": "?"},), ("a", "b"), round=1)
        add_tasks(store, [task], assignees={task.id: people})
        for person in people:
            set_consent(store, person, granted=True)
            add_answers(store, person, [Answer(task.id, ((0,), (1,)))])
        record_snapshot(store, "snapshot-1", freeze(store, up_to_round=1))
        add_model(store, RegisteredModel("reward-1", "reward", "model-x", "", 1, ("snapshot-1",)))
        add_round_event(store, 1, RoundEvent("snapshot"))
        add_round_artifact(store, 1, "snapshot", "snapshot-1")
        add_round_artifact(store, 1, "report", report)
        add_round_event(store, 1, RoundEvent("refused", "gate", "no better", REFUSED))
        yield made


PEOPLE = [("lena", "person"), ("robot", "simulated"), ("machine", "simulated")]


def test_rounds_are_listed_in_short(place: Site) -> None:
    listed = place.client().get("/api/rounds").json()
    assert listed["served"] == "model-0"
    first, second = listed["rounds"]
    assert (first["n"], first["state"], first["served"]) == (0, "serving", True)
    assert (second["n"], second["state"], second["model"], second["served"]) == (1, "refused", "model-1", False)
    assert second["win_rate"]["mean"] == 0.55
    assert second["verdict"]["passed"] is False
    assert second["opened"] > 1_600_000_000


def test_a_round_shows_its_data_models_metrics_verdict_and_events(place: Site) -> None:
    shown = place.client("admin").get("/api/rounds/1").json()
    assert shown["data"]["rankings"] == {"person": 1, "simulated": 2, "model": 0}
    assert {model["name"]: model["snapshots"] for model in shown["models"]} == {
        "model-1": [],
        "reward-1": ["snapshot-1"],
    }
    table = shown["metrics"]
    assert table["columns"] == ["base", "supervised", "ppo"]
    rows = {row["name"]: row for row in table["rows"]}
    assert [value["mean"] for value in rows["helpful"]["values"]] == [0.0, 0.1, 0.2]
    assert [value and value["mean"] for value in rows["win_rate"]["values"]] == [None, 0.6, 0.55]
    assert rows["bits_per_byte"]["better"] == "lower"
    assert shown["verdict"] == {
        "passed": False,
        "reasons": ["win rate 0.49, wanted a lower end above 0.5"],
        "warnings": ["kind chat -0.2"],
        "checks": REFUSED["checks"],
    }
    assert [event["state"] for event in shown["events"]] == ["open", "snapshot", "refused"]
    assert shown["plots"] == [{"name": "reward_against_kl", "title": "Reward against kl"}]
    assert (shown["can_promote"], shown["report"]) == (True, True)
    assert place.client("labeler").get("/api/rounds/1").json()["can_promote"] is False
    assert place.client().get("/api/rounds/2").status_code == 404


def test_plots_and_report_are_sent_where_no_script_can_run(place: Site) -> None:
    client = place.client()
    plot = client.get("/api/rounds/1/plots/reward_against_kl.svg")
    report = client.get("/api/rounds/1/report")
    assert plot.headers["content-type"].startswith("image/svg+xml")
    assert report.headers["content-type"].startswith("text/html")
    for response in (plot, report):
        assert response.status_code == 200
        assert "sandbox" in response.headers["content-security-policy"]
        assert "script-src" not in response.headers["content-security-policy"]
    for missing in ("loss", "..%2f..%2fevaluation", "%2e%2e"):
        assert client.get(f"/api/rounds/1/plots/{missing}.svg").status_code == 404
    assert client.get("/api/rounds/0/report").status_code == 404


def test_a_refused_round_is_promoted_only_with_a_reason_and_rolled_back_at_once(place: Site) -> None:
    admin = place.client("admin")
    refused = admin.post("/api/rounds/1/promote", json={})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "override_required")
    assert "win rate 0.49" in refused.json()["error"]["message"]
    promoted = admin.post("/api/rounds/1/promote", json={"override_reason": "we looked ourselves"})
    assert promoted.json() == {"served": "model-1"}
    now = served(place.store)
    assert now is not None
    assert (now.kind, now.reason, now.model) == ("override", "we looked ourselves", "model-1")
    assert admin.get("/api/models").json()["served"] == "model-1"
    shown = admin.get("/api/rounds/1").json()
    assert (shown["can_promote"], shown["served"]) == (False, True)
    assert admin.post("/api/rounds/rollback", json={}).json() == {"served": "model-0"}
    shown = admin.get("/api/rounds/1").json()
    assert (shown["state"], shown["served"]) == ("rolled_back", False)
    assert admin.post("/api/rounds/rollback", json={}).status_code == 400


def test_a_report_that_has_vanished_leaves_the_page_whole(place: Site) -> None:
    (place.workspace.artifacts / "report-0123456789ab" / "manifest.json").unlink()
    shown = place.client().get("/api/rounds/1").json()
    assert (shown["metrics"], shown["plots"], shown["report"], shown["win_rate"]) == (None, [], False, None)
