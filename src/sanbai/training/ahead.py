"""The batch after the one that is learned from, gathered by the policy as it was before that update.

Where the workers are elsewhere it is gathered beside the update; here, before it. Which policy answers is settled when
gathering begins, so that the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

from sanbai.training.buffer import Gathered
from sanbai.training.roles import RolloutWorker, Workers


class Ahead:
    """One batch that waits, is under way, or has to be begun again. A part of the run that checkpoints save.

    Of a batch under way the checkpoint holds the weights that answer, so that nobody waits for it who wants to stop; a
    run that goes on from there gathers it again, in the same bits.
    """

    def __init__(self, workers: Workers[RolloutWorker]) -> None:
        """Hold nothing yet.

        Args:
            workers: who gather.
        """
        self._workers = workers
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self.clear()

    def clear(self) -> None:
        """Forget the batch: it is learned from now."""
        self._gathered: Gathered | None = None
        self._future: Future[Gathered] | None = None
        self._weights: dict[str, Tensor] = {}

    @property
    def is_empty(self) -> bool:
        """Whether none was begun."""
        return self._gathered is None and not self._weights

    def begin(self, gather: Callable[[], Gathered], weights: Mapping[str, Tensor]) -> None:
        """Gather a batch by these weights, which may change as soon as this returns.

        Args:
            gather: lets the workers do it.
            weights: the policy's, as it is now.

        Raises:
            Interrupted: asked to stop while gathering here; nothing is held.
        """
        self._workers.load(weights)
        if not self._workers.are_elsewhere:
            self._gathered = gather()
            return
        self._weights = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
        self._future = self._beside.submit(gather)

    def begin_again(self, gather: Callable[[], Gathered]) -> None:
        """Gather what was under way when the run was left, if something was."""
        if self._weights:
            self.begin(gather, self._weights)

    def result(self) -> Gathered | None:
        """Return the batch, when it is there; None where none was begun.

        Raises:
            Interrupted: asked to stop while waiting.
        """
        if self._future is not None:
            self._gathered = self._future.result()
        return self._gathered

    def tensors(self) -> dict[str, Tensor]:
        """Return the batch, or while it is under way the weights that answer; nothing where none was begun."""
        if self._future is not None and self._future.done() and self._future.exception() is None:
            self._gathered = self._future.result()
        if self._gathered is not None:
            return {f"gathered/{name}": tensor for name, tensor in self._gathered.tensors().items()}
        return {f"weights/{name}": tensor for name, tensor in self._weights.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `tensors` gave; `begin_again` comes next."""
        self.clear()
        under = {
            kind: {name.removeprefix(kind): tensors[name] for name in tensors if name.startswith(kind)}
            for kind in ("gathered/", "weights/")
        }
        if under["gathered/"]:
            self._gathered = Gathered.from_tensors(under["gathered/"])
        self._weights = under["weights/"]

    def close(self) -> None:
        """Wait for nothing that is under way; it ends with its workers."""
        self._beside.shutdown(wait=False, cancel_futures=True)
