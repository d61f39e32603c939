"""The reward model behind the served one.

A round trains `reward-<n>` and practises `policy-<n>` on it. A served model is scored by its own round's; where there
is none, as for an imported model, by the newest. The judges of rounds are not asked.
"""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass

from sanbai.data.vocabulary import load_tokenizer
from sanbai.feedback.registry import RegisteredModel, list_models
from sanbai.feedback.store import Store
from sanbai.foundation.device import Compute
from sanbai.foundation.workspace import Workspace
from sanbai.serving.problems import Problem
from sanbai.serving.readings import Rows
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.reward_model import RewardModel, load_reward_model, score_rows

COMPUTE = Compute(num_threads=1, precision="float32")


@dataclass(frozen=True)
class ServedReward:
    """A reward model in memory, with its name in the registry."""

    name: str
    reward: RewardModel
    tokenizer: Tokenizer

    @functools.cached_property
    def longest_token(self) -> int:
        """Bytes of the longest token."""
        return max(len(self.tokenizer.token_bytes(id_)) for id_ in range(self.tokenizer.vocab_size))

    def scores(self, rows: Rows) -> list[float]:
        """Return one reward a row."""
        return score_rows(self.reward.model, rows, COMPUTE)


class Rewards:
    """Loads the reward model behind the served one when it is first asked for, and keeps it until another serves."""

    def __init__(self, workspace: Workspace, store: Store) -> None:
        self._workspace, self._store = workspace, store
        self._loaded: ServedReward | None = None
        self._lock = threading.Lock()

    def behind(self, round_number: int) -> ServedReward:
        """Return the reward model of a served model's round.

        Raises:
            Problem: 404, no reward model is registered.
            SanbaiError: it cannot be loaded.
        """
        with self._lock:
            found = self._find(round_number)
            if self._loaded is None or self._loaded.name != found.name:
                artifact = self._workspace.load(found.artifact)
                artifact.verify()
                self._loaded = ServedReward(
                    found.name, load_reward_model(artifact.path, COMPUTE), load_tokenizer(artifact)
                )
            return self._loaded

    def _find(self, round_number: int) -> RegisteredModel:
        known = {model.name: model for model in list_models(self._store) if model.kind == "reward"}
        own = known.get(f"reward-{round_number}")
        newest = [model for name, model in known.items() if not name.startswith("judge-")][-1:]
        if own is None and not newest:
            raise Problem(404, "no reward model is registered; a round trains one", "model_not_found", param="model")
        return own or newest[0]
