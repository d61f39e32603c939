"""Held-out documents: chosen by the hash of their duplicate cluster, so that no copy of one is trained on."""

from __future__ import annotations

import hashlib


def is_held_out(cluster: str, share: float) -> bool:
    """Whether a cluster is held out: its hash, as a number in [0, 1), lies below the share.

    Adding or removing other documents never moves a cluster; a larger share holds out the same ones and more.
    """
    digest = hashlib.blake2b(cluster.encode(), digest_size=8, person=b"sanbai split").digest()
    return int.from_bytes(digest, "big") < share * 2**64
