"""Joining a Ray cluster: training puts workers there, serving replicas. Needs the extra `cluster`."""

from __future__ import annotations

import os
import socket
from typing import Any

from sanbai.foundation.errors import ResourceError

NAMESPACE = "sanbai"
#: Ray reports how it is used to its makers unless told not to; nothing leaves this house.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
CONNECT_SECONDS = 10.0


def import_ray() -> Any:
    """Return Ray's module.

    Raises:
        ResourceError: it is not installed.
    """
    try:
        import ray  # noqa: PLC0415 - only who works on a cluster has it
    except ModuleNotFoundError:
        raise ResourceError("Ray is not installed; pip install 'sanbai[cluster]'") from None
    return ray


def join_cluster(ray: Any, address: str) -> None:
    """Join a cluster, unless this process has already.

    Args:
        ray: the module.
        address: `HOST:6379` or `auto`; `local` starts one here for as long as this process lives.

    Raises:
        ConnectionError, TimeoutError, RuntimeError: there is none; see `first_line`.
    """
    os.environ.update(QUIET)
    if not ray.is_initialized():
        host, _, port = address.rpartition(":")
        if host and port.isdecimal():  # Ray itself asks a host where nobody answers for more than nine minutes
            try:
                socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
            except OSError as error:
                raise ConnectionError(f"nobody answers: {error}") from None
        alone = {"include_dashboard": False} if address == "local" else {}
        ray.init(address, namespace=NAMESPACE, log_to_driver=False, **alone)


def first_line(error: Exception) -> str:
    """Return what an error of Ray's says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
