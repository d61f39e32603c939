"""The snapshot of a round: everything that people said and agreed to give, frozen into an artifact.

Its id is the hash of its content, which holds no times: the same words give the same snapshot.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from sanbai.data.rankings import Ranking, read_rankings
from sanbai.feedback.registry import current_round
from sanbai.feedback.snapshots import Snapshot, freeze, record_snapshot
from sanbai.feedback.store import Store
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.files import JsonlWriter, canonical_json
from sanbai.foundation.stage import Job, Stage, run_stage

FILES = ("rankings", "thumbs", "draft_choices", "conversations", "demonstrations")


def freeze_snapshot(job: Job, store: Store, *, seed: int, round: int) -> Artifact:  # noqa: A002 - the field's word
    """Freeze what may be used of rounds up to this one, and remember which rows went in."""
    return _publish(job, store, freeze(store, up_to_round=round), {"round": str(round)}, seed=seed)


def freeze_thumbs(job: Job, store: Store, *, seed: int) -> Artifact:
    """Freeze the thumbs alone that may be used until now, and remember which rows went in."""
    found = freeze(store, up_to_round=current_round(store))
    items = [item for item in found.items if item.source == "thumb"]
    alone = replace(found, rankings=[], draft_choices=[], conversations=[], demonstrations=[], items=items)
    return _publish(job, store, alone, {}, seed=seed)


def _publish(job: Job, store: Store, snapshot: Snapshot, inputs: Mapping[str, str], *, seed: int) -> Artifact:
    content = {name: getattr(snapshot, name) for name in FILES}

    def build(stage: Stage) -> Mapping[str, Any]:
        for name, rows in content.items():
            with JsonlWriter(stage.folder / f"{name}.jsonl.gz") as writer:
                for row in rows:
                    writer.write(row)
        return _tally(snapshot)

    artifact = run_stage(
        job,
        kind="snapshot",
        name="snapshot",
        recipe={},
        parents={},
        seed=seed,
        floor="feedback",
        num_steps=1,
        build=build,
        inputs={"content": hashlib.sha256(canonical_json(content).encode()).hexdigest(), **inputs},
    )
    record_snapshot(store, artifact.name, snapshot)
    return artifact


def read_snapshot_rankings(artifact: Artifact) -> list[Ranking]:
    """Return the rankings of a snapshot."""
    return list(read_rankings(artifact.file("rankings.jsonl.gz")))


def _tally(snapshot: Snapshot) -> dict[str, int]:
    """Count what a snapshot holds, people's and simulated labelers' apart."""
    by_source = Counter(f"rankings_{row['source']}" for row in snapshot.rankings)
    sizes = {name: len(rows) for name, rows in asdict(snapshot).items() if name in FILES}
    return {**sizes, **dict(sorted(by_source.items()))}
