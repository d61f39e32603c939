"""Which model serves: people promote a round against the gate with a reason, or bring the last model back."""

from __future__ import annotations

from sanbai.feedback.registry import find_round, rollback, serve
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
        UsageError: not judged yet, or refused and no reason given.
    """
    known = find_round(store, number)
    if not known.verdict:
        raise UsageError(f"round {number} is {known.state}, not judged yet; finish it with `sanbai round run`")
    if known.verdict["promote"]:
        serve(store, f"policy-{number}", round=number, actor=actor, reason=override_reason or "promoted by hand")
    elif override_reason.strip():
        serve(store, f"policy-{number}", round=number, actor=actor, reason=override_reason, kind="override")
    else:
        raise UsageError(
            f"round {number} was refused ({known.verdict['summary']}); give --override with a reason to promote it"
        )
