"""A run's state as one flat dictionary of tensors, and back: what is saved is exactly what continues.

Randomness is never saved: every draw is derived from the seed, its name and a counter (`foundation.seeds`), so the
count of steps is the whole random state.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sanbai.data.packing import Cursor
from sanbai.foundation.errors import CheckpointError, Interrupted
from sanbai.foundation.run import Run


class Saved(Protocol):
    """Something with a state of tensors: an optimizer, averaged weights."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the state."""

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Continue from a state."""


class Weights:
    """What learns of a model's parameters as a `Saved`."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def tensors(self) -> dict[str, Tensor]:
        """Return the parameters by name; a shared one once."""
        return {name: parameter.detach() for name, parameter in self._learning().items()}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Overwrite the parameters in place.

        Raises:
            CheckpointError: names or shapes differ.
        """
        parameters = self._learning()
        if differing := sorted(parameters.keys() ^ tensors.keys()):
            raise CheckpointError(f"saved weights do not fit: {differing[0]} is only on one side; start the run anew")
        for name, parameter in parameters.items():
            if parameter.shape != tensors[name].shape:
                raise CheckpointError(
                    f"saved weights do not fit: {name} is {list(tensors[name].shape)}, wanted {list(parameter.shape)}"
                )
            parameter.copy_(tensors[name])

    def _learning(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self._model.named_parameters() if parameter.requires_grad}


def cursor_in(state: Mapping[str, Any], name: str) -> Cursor:
    """Return the data cursor that `state` holds under a name, or the beginning at a run's first start."""
    return Cursor.from_state(state[name]) if name in state else Cursor()


class Checkpoints:
    """Saves the named parts of a run every so many steps and when asked to stop; brings them back."""

    def __init__(self, run: Run, every: int, **parts: Saved) -> None:
        """Name the parts.

        Args:
            run: where checkpoints lie.
            every: steps between two.
            parts: all that the loop changes, counters excepted.
        """
        self._run, self._every, self._parts = run, every, parts

    def resume(self) -> tuple[int, dict[str, Any]]:
        """Load the newest checkpoint into the parts.

        Returns:
            Steps done, and the state given to `after_step`; (0, {}) at the first start.
        """
        found = self._run.load()
        if found is None:
            return 0, {}
        step, tensors, state = found
        for name, part in self._parts.items():
            prefix = f"{name}:"
            part.load({key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)})
        return step, state

    def after_step(self, step: int, state: Mapping[str, Any]) -> None:
        """Save if it is time or if a stop was asked for; then leave in that case.

        Args:
            step: steps done.
            state: what else the loop needs to continue: cursors and counts, JSON values.

        Raises:
            Interrupted: a stop was asked for, and the state is saved.
        """
        if step % self._every == 0 or self._run.stop_requested:
            self._save(step, state)
        self._run.raise_if_stopping()

    @contextlib.contextmanager
    def saving_if_stopped(self, step: int, state: Mapping[str, Any]) -> Iterator[None]:
        """Do long work that changes no part: where it ends by `Interrupted`, all is saved as it was before it.

        Args:
            step: steps done.
            state: as for `after_step`, before the work.
        """
        try:
            yield
        except Interrupted:
            self._save(step, state)
            raise

    def _save(self, step: int, state: Mapping[str, Any]) -> None:
        tensors = {
            f"{name}:{key}": value for name, part in self._parts.items() for key, value in part.tensors().items()
        }
        self._run.save(step, tensors, state)
