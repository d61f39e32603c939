"""The pairs that a reward model orders most surely against people: to be read, since numbers do not say why.

Text of messages: it belongs into a report's page and its `context.json`, never into metrics or logs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanbai.evaluation.reward_accuracy import StrictPair

NUM_MISTAKES = 5


def confident_mistakes(
    pairs: Sequence[StrictPair], margin_N: NDArray[np.float64], *, num: int = NUM_MISTAKES
) -> list[dict[str, Any]]:
    """Return the surest mistakes, at most one a prompt.

    A pair is a mistake where more labelers chose one answer and the model prefers the other.

    Args:
        pairs: of held-out labelers on held-out prompts; a pair of answers may have several labelers' words.
        margin_N: reward of the chosen less reward of the rejected answer.
        num: most that are returned.

    Returns:
        `{"kind", "messages", "chosen", "rejected", "probability", "num_labelers", "num_agreeing"}`, the surest first:
        the probability that the model gave to the answer people rejected, and how many of the labelers who ordered the
        two chose the first.
    """
    votes: dict[tuple[str, str, str], int] = {}
    for pair in pairs:
        votes[pair.prompt, pair.chosen, pair.rejected] = votes.get((pair.prompt, pair.chosen, pair.rejected), 0) + 1
    shown: dict[str, dict[str, Any]] = {}
    for place in np.argsort(margin_N, kind="stable").tolist():
        pair, margin = pairs[place], float(margin_N[place])
        if margin >= 0 or len(shown) == num:
            break
        agreeing = votes[pair.prompt, pair.chosen, pair.rejected]
        opposed = votes.get((pair.prompt, pair.rejected, pair.chosen), 0)
        if agreeing > opposed and pair.prompt not in shown:
            shown[pair.prompt] = {
                "kind": pair.kind,
                "messages": [dict(message) for message in pair.messages],
                "chosen": pair.chosen,
                "rejected": pair.rejected,
                "probability": float(1 / (1 + np.exp(margin))),
                "num_labelers": agreeing + opposed,
                "num_agreeing": agreeing,
            }
    return list(shown.values())
