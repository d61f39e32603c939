"""What people said, as a stage's input: by its hash, and by how many prompts it is about."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sanbai.data.rankings import Ranking
from sanbai.data.thumbs import ThumbedAnswer
from sanbai.foundation.files import canonical_json


def num_training_prompts(opinions: Sequence[Ranking | ThumbedAnswer], validation_share: float) -> int:
    """Return about how many different prompts are trained on; for the progress bar."""
    return round(len({canonical_json(list(opinion.messages)) for opinion in opinions}) * (1 - validation_share))


def digest(opinions: Sequence[Ranking] | Sequence[ThumbedAnswer]) -> str:
    """Return a hash of rankings or thumbs, whatever their order."""
    rows = sorted(canonical_json(opinion.to_row()) for opinion in opinions)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
