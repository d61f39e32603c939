"""The pool's accounts against a model of them: plain sets and a dictionary from whole prefixes to blocks."""

from __future__ import annotations

import random

import pytest

from sanbai.foundation.errors import ResourceError
from sanbai.generation.blocks import BlockPool, root_key


def enter_all(pool: BlockPool, blocks: list[int], tokens: list[int], salt: str = "") -> None:
    key = root_key(salt)
    for place, block in enumerate(blocks):
        key = pool.enter(block, key, tokens[place * pool.size : (place + 1) * pool.size])


def test_a_prefix_is_found_by_whole_blocks_and_by_its_own_tenant_alone() -> None:
    pool = BlockPool(8, 2)
    blocks = pool.take(3)
    enter_all(pool, blocks, [1, 2, 3, 4, 5, 6], "ann")
    assert pool.find([1, 2, 3, 4, 5, 6, 7], "ann") == blocks
    assert pool.find([1, 2, 3, 4, 5], "ann") == blocks[:2]
    assert pool.find([1, 2, 9, 4, 5, 6], "ann") == blocks[:1]
    assert pool.find([9, 2, 3, 4, 5, 6], "ann") == []
    assert pool.find([3, 4, 5, 6], "ann") == []
    assert pool.find([1, 2, 3, 4, 5, 6], "bob") == []


def test_a_hash_that_collides_gives_nobody_anothers_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sanbai.generation.blocks._next_key", lambda before, tokens: b"always the same")
    pool = BlockPool(8, 2)
    enter_all(pool, pool.take(1), [1, 2])
    assert pool.find([1, 2], "") == [0]
    assert pool.find([3, 4], "") == []


def test_released_blocks_stay_findable_until_their_room_is_needed_the_longest_idle_first() -> None:
    pool = BlockPool(4, 1)
    first, second = pool.take(2), pool.take(1)
    enter_all(pool, first, [1, 2])
    enter_all(pool, second, [7])
    pool.release(first)
    pool.release(second)
    assert (pool.num_available, pool.num_used, pool.num_findable) == (4, 0, 3)
    assert pool.take(1) == [3]  # the one that holds nothing
    assert pool.take(1) == first[1:]  # the end of a prefix goes before its beginning
    assert pool.find([1, 2], "") == first[:1]
    pool.share(first[:1])  # in use again, so not to be taken
    assert pool.take(1) == second
    with pytest.raises(ResourceError, match="1 cache blocks wanted and 0 of 4 available"):
        pool.take(1)
    assert pool.find([1], "") == first[:1]


def test_forgetting_makes_nothing_findable_and_leaves_what_is_in_use() -> None:
    pool = BlockPool(4, 1)
    used, idle = pool.take(1), pool.take(1)
    enter_all(pool, used, [1])
    enter_all(pool, idle, [2])
    pool.release(idle)
    pool.forget()
    assert pool.find([1], "") == pool.find([2], "") == []
    assert (pool.num_used, pool.num_available) == (1, 3)
    pool.release(used)
    assert sorted(pool.take(4)) == [0, 1, 2, 3]


def test_accounts_are_exact_after_thousands_of_random_texts() -> None:
    dice, size = random.Random(1), 3
    pool = BlockPool(40, size)
    held: list[list[int]] = []
    content: dict[int, tuple[int, ...]] = {}  # block -> all tokens up to its end, as last written
    hits = 0
    for _ in range(5000):
        tokens = [dice.randrange(2) for _ in range(dice.randint(1, 20))]
        found = pool.find(tokens, "")
        for place, block in enumerate(found):
            assert content[block] == tuple(tokens[: (place + 1) * size])
        hits += len(found)
        pool.share(found)
        missing = pool.blocks_for(len(tokens)) - len(found)
        if missing <= pool.num_available:
            blocks = found + pool.take(missing)
            for place in range(len(found), len(tokens) // size):
                content[blocks[place]] = tuple(tokens[: (place + 1) * size])
            enter_all(pool, blocks[: len(tokens) // size], tokens)
            held.append(blocks)
        else:
            pool.release(found)
        while held and (pool.num_available < 5 or dice.random() < 0.4):
            pool.release(held.pop(dice.randrange(len(held))))
        in_use = {block for blocks in held for block in blocks}
        assert pool.num_used == len(in_use)
    for blocks in held:
        pool.release(blocks)
    assert (pool.num_available, pool.num_used) == (40, 0)
    assert hits > 1000
