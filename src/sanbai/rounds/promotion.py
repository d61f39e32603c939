"""Which model serves: people promote a round against the gate with a reason, or bring the last model back."""

from __future__ import annotations

from sanbai.feedback.registry import find_round, rollback, serve, served
from sanbai.feedback.store import Store
from sanbai.foundation.errors import UsageError

__all__ = ["promote", "rollback"]


def promote(store: Store, number: int, *, actor: str, override_reason: str = "") -> None:
    """Let a round's policy serve.

    Args:
        store: feedback and registry.
        number: of a round that the gate has judged.
        actor: who decides.
        override_reason: why, if the gate has refused; kept on record.

    Raises:
        UnknownNameError: no such round.
        UsageError: not judged yet, serving already, or refused and no reason given.
    """
    known, policy, reason = find_round(store, number), f"policy-{number}", override_reason.strip()
    if not known.verdict:
        raise UsageError(f"round {number} is {known.state}, not judged yet; finish it with `sanbai round run`")
    deployment = served(store)
    if deployment is not None and deployment.model == policy:
        raise UsageError(f"{policy} serves already; `sanbai round rollback` brings back the model before it")
    if known.verdict["promote"]:
        serve(store, policy, round=number, actor=actor, reason=reason or "promoted by hand")
    elif reason:
        serve(store, policy, round=number, actor=actor, reason=reason, kind="override")
    else:
        raise UsageError(
            f"round {number} was refused ({known.verdict['summary']}); give --override with a reason to promote it"
        )
