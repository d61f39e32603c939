"""Workers of a role as actors on a Ray cluster. Needs the extra `cluster`.

Each call carries a reference to the weights that it is to be made with; an actor that holds others fetches these first.
So an actor knows nothing that a call does not bring: Ray starts one that died anew, where there is room, and makes its
call again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor

from sanbai.foundation.device import apply_compute
from sanbai.foundation.errors import ResourceError
from sanbai.foundation.ray_cluster import first_line, import_ray, join_cluster
from sanbai.generation.weights import weights_digest
from sanbai.training.roles import AnyWorker, RolesRecipe, Workers, hands

Part = TypeVar("Part")
Common = TypeVar("Common")
Result = TypeVar("Result")

#: How often a stop is looked for while others work, and how long actors may take to appear.
LOOK_SECONDS, START_SECONDS = 0.2, 300.0


class Actor:
    """A worker in a process of its own on some node."""

    def __init__(self, sent: Sequence[Any]) -> None:
        """Fetch the worker.

        Args:
            sent: a reference to it, in a list: Ray would fetch it again for each start.
        """
        self._worker = import_ray().get(sent[0])
        self._version = 0
        apply_compute(self._worker.compute)

    def ready(self) -> None:
        """Answer when it stands."""

    def do(self, work: Callable[..., Any], hand: Sequence[Any], common: Any, version: int, sent: Sequence[Any]) -> Any:
        """Return what the worker makes of its parts, with weights of a version.

        Args:
            work: a method of the worker.
            hand: the parts.
            common: what all need.
            version: of the weights, counted from 1; 0: those that the worker came with.
            sent: a reference to weights and digest, in a list: fetched only where they are new here.
        """
        if version != self._version:
            self._worker.models.load(*import_ray().get(sent[0]))
            self._version = version
        return work(self._worker, hand, common)


class RayWorkers(Workers[AnyWorker]):
    """The actors of a role, seen from the process that holds the run."""

    are_elsewhere = True

    def __init__(self, worker: AnyWorker, num: int, recipe: RolesRecipe, leave_if_asked: Callable[[], None]) -> None:
        """Start them and wait until they stand.

        Args:
            worker: is copied.
            num: how many.
            recipe: where, and what is kept for each.
            leave_if_asked: called while others work; what it raises ends the wait.

        Raises:
            ResourceError: no Ray, no such cluster, or no room there.
        """
        self._ray, self._leave_if_asked, self._where = import_ray(), leave_if_asked, recipe.address
        self._version, self._sent = 0, [None]
        try:
            join_cluster(self._ray, recipe.address)
            found = self._ray.cluster_resources()
            for kind, each in (("CPU", recipe.worker_cpus), ("GPU", recipe.worker_gpus)):
                if found.get(kind, 0) < each * num:
                    raise ResourceError(
                        f"{recipe.address}: this Ray cluster has {found.get(kind, 0):g} {kind} and {num} workers of "
                        f"{each:g} are wanted; add nodes, or lower ppo.roles"
                    )
            actor = self._ray.remote(Actor).options(
                num_cpus=recipe.worker_cpus,
                num_gpus=recipe.worker_gpus,
                max_restarts=-1,
                max_task_retries=-1,
                scheduling_strategy="SPREAD",
            )
            self._worker = self._ray.put(worker.elsewhere())  # held, for actors that are started anew
            self._actors = [actor.remote([self._worker]) for _ in range(num)]
            self._wait([each.ready.remote() for each in self._actors], seconds=START_SECONDS)
        except (ConnectionError, TimeoutError, RuntimeError, self._ray.exceptions.RayError) as error:
            raise ResourceError(f"{recipe.address}: no workers on this Ray cluster: {first_line(error)}") from None

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Put the weights where the next calls' actors find them."""
        found = {name: tensor.cpu() for name, tensor in weights.items()}
        self._version, self._sent = self._version + 1, [self._ray.put((found, weights_digest(found)))]

    def deal(
        self, work: Callable[[AnyWorker, Sequence[Part], Common], Result], parts: Sequence[Part], common: Common
    ) -> list[tuple[Sequence[Part], Result]]:
        """Let all actors work at once.

        Raises:
            ResourceError: actors died, and the cluster cannot start them anew.
        """
        dealt, shared = hands(parts, len(self._actors)), self._ray.put(common)
        calls = [
            actor.do.remote(work, hand, shared, self._version, self._sent)
            for actor, hand in zip(self._actors, dealt, strict=False)
        ]
        try:
            return list(zip(dealt, self._wait(calls), strict=True))
        except self._ray.exceptions.RayActorError as error:
            raise ResourceError(
                f"{self._where}: a worker is gone from this Ray cluster; give the same command again to continue: "
                f"{first_line(error)}"
            ) from None
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None  # as it would have been raised here

    def close(self) -> None:
        """End the actors; the cluster stays."""
        for actor in self._actors:
            self._ray.kill(actor)

    def _wait(self, calls: Sequence[Any], seconds: float = float("inf")) -> list[Any]:
        until, pending = time.monotonic() + seconds, list(calls)
        while pending:
            self._leave_if_asked()
            _, pending = self._ray.wait(pending, num_returns=len(pending), timeout=LOOK_SECONDS)
            if pending and time.monotonic() > until:
                raise TimeoutError(f"{len(pending)} of {len(calls)} have not appeared in {seconds:g} seconds")
        found: list[Any] = self._ray.get(list(calls))
        return found
