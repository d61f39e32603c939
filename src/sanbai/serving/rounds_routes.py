"""The rounds page's routes: what each round was made of, how its models did, what the gate said, who overruled it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field
from starlette.responses import Response

from sanbai.feedback import registry, snapshots
from sanbai.feedback.registry import RegisteredModel, Round
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.errors import SanbaiError
from sanbai.foundation.files import read_json
from sanbai.serving.house import House
from sanbai.serving.problems import Problem, not_found
from sanbai.serving.routes import Body, Call, PlainText, Row
from sanbai.serving.security import REPORT_POLICY

HIGHEST_ROUND = 1_000_000

#: name, words, unit, which way is better: the rows of the metrics table, in order.
METRICS = (
    ("helpful", "Helpful", "share", "higher"),
    ("honest", "Honest", "share", "higher"),
    ("harmless", "Harmless", "share", "higher"),
    ("gold_utility", "Gold utility", "number", "higher"),
    ("bits_per_byte", "Bits per byte", "bits", "lower"),
    ("win_rate", "Win rate against the one before", "share", "higher"),
)


class Promotion(Body):
    """Put a round's policy into service; against the gate only with a reason."""

    override_reason: PlainText = Field(default="", max_length=2000)


def list_rounds(call: Call) -> dict[str, Any]:
    """Return all rounds in short."""
    house = call.house
    deployment = registry.served(house.store)
    models = registry.list_models(house.store)
    rounds = [_summary(house, one, models, deployment) for one in registry.list_rounds(house.store)]
    return {"served": deployment.model if deployment else "", "rounds": rounds}


def show_round(call: Call) -> dict[str, Any]:
    """Return one round with its data, models, metrics, verdict and events."""
    house = call.house
    deployment = registry.served(house.store)
    models = registry.list_models(house.store)
    found = _find(call)
    summary = _summary(house, found, models, deployment)
    evaluation = _evaluation(house, found)
    report = _artifact(house, found, "report")
    return summary | {
        "can_promote": call.account.may_act_as("admin") and _may_serve(found, summary),
        "data": _data(house, found),
        "models": [
            {
                "name": model.name,
                "kind": model.kind,
                "parent": model.parent or None,
                "artifact": model.artifact,
                "round": model.round,
                "snapshots": model.snapshots,
                "served": deployment is not None and model.name == deployment.model,
            }
            for model in models
            if model.round == found.n
        ],
        "metrics": metrics_table(evaluation),
        "plots": [{"name": name, "title": name.replace("_", " ").capitalize()} for name in _plot_names(report)],
        "events": [
            {"state": event.state, "at": event.time / 1000, "actor": event.actor, "reason": event.reason}
            for event in found.events
        ],
        "report": report is not None and "report.html" in report.manifest["files"],
    }


def show_plot(call: Call) -> Response:
    """Send one drawing of a round's report."""
    report = _artifact(call.house, _find(call), "report")
    name = f"plots/{call.part('name')}.svg"
    if report is None or name not in report.manifest["files"]:
        raise not_found("this round has no such plot")
    return _made_file(report, name, "image/svg+xml")


def show_report(call: Call) -> Response:
    """Send a round's report as a page of its own."""
    report = _artifact(call.house, _find(call), "report")
    if report is None or "report.html" not in report.manifest["files"]:
        raise not_found("this round has no report yet")
    return _made_file(report, "report.html", "text/html")


def promote(call: Call) -> dict[str, Any]:
    """Put a round's policy into service."""
    house, found, reason = call.house, _find(call), call.body(Promotion).override_reason.strip()
    verdict = describe_verdict(found.verdict)
    if verdict is not None and not verdict["passed"] and not reason:
        why = "; ".join(verdict["reasons"]) or "the gate refused this round"
        raise Problem(409, why, "override_required", param="override_reason", headers={"x-should-retry": "false"})
    house.promote(found.n, reason, call.account.name)
    house.source.refresh()
    return {"served": house.source.served_name}


def rollback(call: Call) -> dict[str, Any]:
    """Bring back the model that served before."""
    call.house.rollback(call.account.name)
    call.house.source.refresh()
    return {"served": call.house.source.served_name}


def describe_verdict(verdict: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the gate's verdict as the page shows it: passed or not, why, and what is worse although it passed.

    Args:
        verdict: `{"promote", "checks": [{"name", "passed", "found", "wanted"}], "worse": [...]}`, or empty.
    """
    if not verdict:
        return None
    passed = bool(verdict.get("promote", verdict.get("passed", False)))
    checks: Sequence[Mapping[str, Any]] = verdict.get("checks", ())
    reasons = [f"{check['name']} {check['found']}, wanted {check['wanted']}" for check in checks if not check["passed"]]
    if not reasons:
        reasons = [f"{check['name']} {check['found']}" for check in checks]
    return {
        "passed": passed,
        "reasons": reasons or list(verdict.get("reasons", ())),
        "warnings": list(verdict.get("worse", verdict.get("warnings", ()))),
        "checks": [{key: check[key] for key in ("name", "passed", "found", "wanted")} for check in checks],
    }


def metrics_table(evaluation: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the figures of an evaluation, a column a model and a row a metric; None where there is no evaluation."""
    scores: Mapping[str, Mapping[str, Any]] = evaluation.get("evaluation", {})
    if not scores:
        return None
    columns = list(scores)
    wins: Mapping[str, Any] = evaluation.get("win_rate", {})
    before = dict(zip(columns[1:], columns, strict=False))
    rows = []
    for name, text, unit, better in METRICS:
        if name == "win_rate":
            values = [_estimate(wins.get(f"{column}_vs_{before.get(column)}")) for column in columns]
        else:
            values = [_estimate(scores[column].get(name)) for column in columns]
        if any(values):
            rows.append({"name": name, "text": text, "unit": unit, "better": better, "values": values})
    return {"columns": columns, "rows": rows}


def _summary(
    house: House, found: Round, models: Sequence[RegisteredModel], deployment: registry.Deployment | None
) -> dict[str, Any]:
    policies = [model.name for model in models if model.round == found.n and model.kind == "policy"]
    wins = _evaluation(house, found).get("win_rate", {})
    return {
        "n": found.n,
        "state": found.state,
        "model": policies[-1] if policies else None,
        "verdict": describe_verdict(found.verdict),
        "opened": found.events[0].time / 1000,
        "win_rate": _estimate(list(wins.values())[-1]) if wins else None,
        "served": deployment is not None and deployment.model in policies,
    }


def _may_serve(found: Round, summary: Mapping[str, Any]) -> bool:
    return summary["model"] is not None and not summary["served"] and found.state in {"gated", "refused", "rolled_back"}


def _data(house: House, found: Round) -> dict[str, Any]:
    """Count what is in the round's snapshot; before it is frozen, what would be."""
    frozen = found.artifacts.get("snapshot")
    if frozen:
        items = snapshots.snapshot_items(house.store, frozen[-1])
    else:
        items = snapshots.freeze(house.store, up_to_round=found.n).items
    return snapshots.count_items(house.store, items)


def _find(call: Call) -> Round:
    text = str(call.request.path_params["n"])
    if not text.isdecimal() or len(text) > 7 or int(text) > HIGHEST_ROUND:
        raise not_found("no such round")
    return registry.find_round(call.house.store, int(text))


def _artifact(house: House, found: Round, role: str) -> Artifact | None:
    """Return the newest artifact of a role; a damaged or missing one counts as none."""
    names = found.artifacts.get(role, ())
    try:
        return house.workspace.load(names[-1]) if names else None
    except SanbaiError:
        return None


def _evaluation(house: House, found: Round) -> Mapping[str, Any]:
    report = _artifact(house, found, "report")
    if report is None or "evaluation.json" not in report.manifest["files"]:
        return {}
    content: Mapping[str, Any] = read_json(report.file("evaluation.json"))
    return content


def _plot_names(report: Artifact | None) -> list[str]:
    files = report.manifest["files"] if report else {}
    return [name[len("plots/") : -len(".svg")] for name in sorted(files) if name.startswith("plots/")]


def _made_file(artifact: Artifact, name: str, media_type: str) -> Response:
    content = artifact.file(name).read_bytes()
    return Response(content, media_type=media_type, headers={"content-security-policy": REPORT_POLICY})


def _estimate(value: Any) -> dict[str, float] | None:
    if not isinstance(value, Mapping) or not {"mean", "low", "high", "n"} <= value.keys():
        return None
    return {key: value[key] for key in ("mean", "low", "high", "n")}


ROWS = (
    Row("GET", "/api/rounds", "user", list_rounds),
    Row("POST", "/api/rounds/rollback", "admin", rollback),
    Row("GET", "/api/rounds/{n}", "user", show_round),
    Row("GET", "/api/rounds/{n}/plots/{name}.svg", "user", show_plot),
    Row("GET", "/api/rounds/{n}/report", "user", show_report),
    Row("POST", "/api/rounds/{n}/promote", "admin", promote, Promotion),
)
