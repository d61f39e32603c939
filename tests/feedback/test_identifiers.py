from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from sanbai.feedback.identifiers import content_id, new_id


def test_an_id_is_a_uuid_of_version_7_that_holds_the_time() -> None:
    before = time.time_ns() // 1_000_000
    value = uuid.UUID(new_id())
    assert value.variant == uuid.RFC_4122
    assert value.version == 7
    assert before <= value.int >> 80 <= time.time_ns() // 1_000_000 + 10


def test_ids_sort_in_the_order_they_were_made_and_never_repeat_between_threads() -> None:
    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda _: [new_id() for _ in range(3000)], range(8)))
    assert all(batch == sorted(batch) for batch in batches)
    assert len({one for batch in batches for one in batch}) == 8 * 3000


def test_an_id_of_content_does_not_depend_on_the_order_of_keys() -> None:
    assert content_id({"a": 1, "b": [2]}) == content_id({"b": [2], "a": 1})
    assert content_id("a", "b") != content_id("ab")
