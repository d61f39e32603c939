"""Which block of the cache is whose: references, the free ones, and prefixes that later texts may share.

A block holds the keys and values of `size` positions. A text holds a reference to each of its blocks; texts that begin
alike hold the same ones. A full block is entered under a key that stands for all tokens up to its end,

    key_0 = SHA-256(salt),    key_i = SHA-256(key_{i-1} | tokens of block i),

so that a text finds its longest known prefix block by block. Tenants have different salts, so that nobody can tell by
its speed that another has sent the same text. Tokens are compared on a hit: a hash decides where to look, never what is
there.

A block that nobody refers to any more is free; one that has been entered stays findable until its room is needed, the
one out of use for longest going first. This is accounting only: numbers of blocks, no tensors.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sanbai.foundation.errors import ResourceError


class _Entry(NamedTuple):
    """What a full block holds."""

    key: bytes
    before: bytes
    tokens: Sequence[int]


class BlockPool:
    """A fixed number of blocks."""

    def __init__(self, num_blocks: int, size: int) -> None:
        """Begin with all blocks free.

        Args:
            num_blocks: how many there are.
            size: positions of each.
        """
        self.num_blocks, self.size = num_blocks, size
        self._free = list(range(num_blocks))[::-1]
        self._references = [0] * num_blocks
        self._idle: OrderedDict[int, None] = OrderedDict()  # entered, referred to by nobody, longest out of use first
        self._entries: dict[int, _Entry] = {}
        self._block_of: dict[bytes, int] = {}

    @property
    def num_available(self) -> int:
        """Blocks that nobody refers to."""
        return len(self._free) + len(self._idle)

    @property
    def num_used(self) -> int:
        """Blocks that somebody refers to."""
        return self.num_blocks - self.num_available

    @property
    def num_findable(self) -> int:
        """Blocks that a text with the same beginning would find."""
        return len(self._entries)

    def blocks_for(self, num_positions: int) -> int:
        """Return how many blocks hold so many positions."""
        return -(-num_positions // self.size)

    def take(self, count: int) -> list[int]:
        """Return blocks of one's own.

        Raises:
            ResourceError: fewer are available.
        """
        if count > self.num_available:
            raise ResourceError(
                f"{count} cache blocks wanted and {self.num_available} of {self.num_blocks} available; give the engine "
                "more blocks"
            )
        blocks = [self._free.pop() if self._free else self._evict() for _ in range(count)]
        for block in blocks:
            self._references[block] = 1
        return blocks

    def share(self, blocks: Sequence[int]) -> None:
        """Refer to blocks that are in use or idle once more."""
        for block in blocks:
            self._idle.pop(block, None)
            self._references[block] += 1

    def release(self, blocks: Sequence[int]) -> None:
        """Refer to blocks once less; a text's last ones go out of use first, since they are of use to fewest."""
        for block in reversed(blocks):
            self._references[block] -= 1
            assert self._references[block] >= 0, f"block {block} released once too often"
            if self._references[block] == 0:
                if block in self._entries:
                    self._idle[block] = None
                else:
                    self._free.append(block)

    def find(self, tokens: Sequence[int], salt: str) -> list[int]:
        """Return the blocks of the longest known prefix; the caller shares them before it takes any."""
        found: list[int] = []
        for before, key, content in self._chain(tokens, salt):
            block = self._block_of.get(key)
            if block is None or self._entries[block].before != before or self._entries[block].tokens != content:
                break
            found.append(block)
        return found

    def enter(self, block: int, before: bytes, tokens: Sequence[int]) -> bytes:
        """Make a full block findable unless an equal one is; return its key.

        Args:
            block: referred to by the caller, and written.
            before: the key of the block before it; of the first, `root_key`.
            tokens: of this block alone.
        """
        key = _next_key(before, tokens)
        if key not in self._block_of and block not in self._entries:
            self._block_of[key] = block
            self._entries[block] = _Entry(key, before, list(tokens))
        return key

    def key_of(self, block: int) -> bytes:
        """Return the key of a block that `find` returned."""
        return self._entries[block].key

    def forget(self) -> None:
        """Make every block unfindable; those in use stay in use."""
        self._free.extend(self._idle)
        self._idle.clear()
        self._entries.clear()
        self._block_of.clear()

    def _evict(self) -> int:
        block, _ = self._idle.popitem(last=False)
        del self._block_of[self._entries.pop(block).key]
        return block

    def _chain(self, tokens: Sequence[int], salt: str) -> Iterator[tuple[bytes, bytes, Sequence[int]]]:
        before = root_key(salt)
        for start in range(0, len(tokens) - self.size + 1, self.size):
            content = tokens[start : start + self.size]
            key = _next_key(before, content)
            yield before, key, list(content)
            before = key


def root_key(salt: str) -> bytes:
    """Return the key before the first block of a text."""
    return hashlib.sha256(salt.encode("utf-8", "surrogatepass")).digest()


def _next_key(before: bytes, tokens: Sequence[int]) -> bytes:
    return hashlib.sha256(before + array("q", tokens).tobytes()).digest()
