from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.serving.conftest import Site, running_site

from sanbai.serving import embeddings_api
from sanbai.serving.problems import Problem
from sanbai.serving.readings import Reading, Readings
from sanbai.text.tokenizer import Tokenizer


def reading(tenant: str, lengths: Sequence[int], told: list[Any], read: list[Any]) -> Reading:
    def compute(rows: Sequence[Sequence[int]]) -> list[int]:
        read.append((tenant, [len(row) for row in rows]))
        return [sum(row) for row in rows]

    return Reading([[1] * length for length in lengths], compute, tenant, told.append)


def test_accounts_take_turns_batch_by_batch() -> None:
    readings, told, read = Readings(max_waiting=4, batch_tokens=10), list[Any](), list[Any]()
    readings.submit(reading("anna", [6, 4, 3, 20, 2], told, read))
    readings.submit(reading("anna", [1], told, read))
    readings.submit(reading("ben", [5, 5, 5], told, read))
    while readings.num_open:
        readings.step()
    # A batch has at most ten tokens, or one row; who had a turn goes to the end of the line.
    assert read == [
        ("anna", [6, 4]),
        ("ben", [5, 5]),
        ("anna", [1]),
        ("ben", [5]),
        ("anna", [3]),
        ("anna", [20]),
        ("anna", [2]),
    ]
    assert told == [[1], [5, 5, 5], [6, 4, 3, 20, 2]]
    readings.step()  # nothing to do


def test_the_queue_is_bounded_and_what_nobody_waits_for_is_dropped() -> None:
    readings, told, read = Readings(max_waiting=2, batch_tokens=4), list[Any](), list[Any]()
    first = reading("anna", [4, 4], told, read)
    readings.submit(first)
    readings.submit(reading("ben", [4], told, read))
    with pytest.raises(Problem) as refused:
        readings.submit(reading("carl", [4], told, read))
    assert refused.value.status == 429
    assert "Retry-After" in refused.value.all_headers()
    readings.step()
    first.stop()
    readings.step()
    readings.step()
    assert read == [("anna", [4]), ("ben", [4])]
    assert isinstance(told[1], Problem)
    assert readings.num_open == 0
    readings.submit(reading("carl", [4], told, read))


def test_one_that_breaks_is_told_and_the_others_are_read() -> None:
    readings, told, read = Readings(max_waiting=3, batch_tokens=4), list[Any](), list[Any]()
    broken = reading("anna", [4], told, read)
    broken.compute = lambda _: 1 / 0  # type: ignore[assignment,return-value]
    readings.submit(broken)
    readings.submit(reading("ben", [4], told, read))
    readings.submit(reading("carl", [4], told, read))
    readings.step()
    readings.step()
    readings.end_all(Problem(503, "leaving", "overloaded"))
    assert [getattr(one, "status", one) for one in told] == [500, [4], 503]


@pytest.fixture
def small(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Site, list[int]]]:
    """A server that reads four texts a second and lets one request wait, and what it has read."""
    mean_vector, done = embeddings_api.mean_vector, list[int]()

    def slowly(served: Any, ids: Sequence[int]) -> Any:
        time.sleep(0.25)
        done.append(len(ids))
        return mean_vector(served, ids)

    monkeypatch.setattr(embeddings_api, "mean_vector", slowly)
    with running_site(tmp_path, tokenizer, max_waiting=0, step_tokens=20, max_running=4) as made:
        yield made, done


def test_a_client_that_leaves_frees_the_queue_and_answers_go_on_meanwhile(small: tuple[Site, list[int]]) -> None:
    site, done = small
    body = {"model": "sanbai", "input": ["Anna bakes bread in the mill, and so on."] * 200}
    engine = site.app.state.house.engine
    refused: list[httpx2.Response] = []
    answered: list[httpx2.Response] = []

    def others() -> None:
        while engine._readings.num_open == 0:
            time.sleep(0.01)
        refused.append(site.program().post("/v1/embeddings", json=body))
        chat = {"model": "sanbai", "messages": [{"role": "user", "content": "x"}], "max_tokens": 3}
        answered.append(site.program().post("/v1/chat/completions", json=chat))

    thread = threading.Thread(target=others)
    thread.start()
    with pytest.raises(httpx2.ReadTimeout):
        site.program().post("/v1/embeddings", json=body, timeout=6)
    thread.join()
    deadline = time.monotonic() + 20
    while engine._readings.num_open and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine._readings.num_open == 0
    assert len(done) < 200
    assert (refused[0].status_code, refused[0].headers["retry-after"]) == (429, "2")
    assert answered[0].status_code == 200
    assert site.program().post("/v1/embeddings", json={"model": "sanbai", "input": "x"}).status_code == 200
