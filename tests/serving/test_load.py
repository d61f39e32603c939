"""Under load and after faults: limited, told, freed, and served again."""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.serving.conftest import Site, running_site

from sanbai.feedback.registry import serve
from sanbai.generation.engine import ContinuousEngine
from sanbai.generation.request import NewToken
from sanbai.model.heads import LanguageModel
from sanbai.serving import engine as serving_engine
from sanbai.serving.answers import Answers
from sanbai.serving.engine import Order
from sanbai.serving.readings import Readings
from sanbai.text.tokenizer import Tokenizer

CHAT: dict[str, Any] = {"model": "sanbai", "messages": [{"role": "user", "content": "Who bakes?"}], "max_tokens": 4}


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ask_at_once(site: Site, bodies: list[dict[str, Any]]) -> list[httpx2.Response]:
    answers: list[httpx2.Response] = []
    programs = [site.program() for _ in bodies]

    def ask(program: httpx2.Client, body: dict[str, Any]) -> None:
        answers.append(program.post("/v1/chat/completions", json=body, timeout=120))

    threads = [threading.Thread(target=ask, args=pair) for pair in zip(programs, bodies, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_ready_goes_red_while_no_step_ends_and_green_after(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    step, entered, go_on = ContinuousEngine.step, threading.Event(), threading.Event()

    def stuck(self: ContinuousEngine) -> list[NewToken]:
        entered.set()
        go_on.wait(60)
        return step(self)

    monkeypatch.setattr(serving_engine, "STALE_SECONDS", 0.2)
    monkeypatch.setattr(ContinuousEngine, "step", stuck)
    probe, answers = site.stranger(), list[httpx2.Response]()
    asking = threading.Thread(target=lambda: answers.extend(ask_at_once(site, [CHAT])))
    asking.start()
    assert entered.wait(60)
    until(lambda: probe.get("/ready").status_code == 503)
    assert "no token" in probe.get("/ready").json()["status"]
    assert probe.get("/health").status_code == 200
    go_on.set()
    asking.join()
    assert answers[0].status_code == 200
    until(lambda: probe.get("/ready").status_code == 200)


@pytest.mark.parametrize("where", ["step", "thread"])
def test_a_crash_tells_everyone_who_waits_and_the_next_is_served(
    site: Site, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    waiting = threading.Event()
    engine = site.app.state.house.engine

    def breaking(_: object) -> None:
        waiting.wait(60)
        raise RuntimeError("canary text of a message")

    with monkeypatch.context() as broken:
        if where == "step":
            broken.setattr(ContinuousEngine, "step", breaking)
        else:  # outside of every guard around one model
            broken.setattr(Readings, "step", breaking)
        answers: list[httpx2.Response] = []
        asking = threading.Thread(target=lambda: answers.extend(ask_at_once(site, [CHAT | {"max_tokens": 100}] * 5)))
        asking.start()
        until(lambda: engine.num_running >= 5)
        waiting.set()
        asking.join()
    assert len(answers) == 5
    failed = [answer for answer in answers if answer.status_code == 500]
    assert failed
    assert all("canary" not in answer.text for answer in failed)
    assert all(answer.headers["x-should-retry"] == "true" for answer in failed)
    assert engine.num_running == 0
    assert site.program().post("/v1/chat/completions", json=CHAT).status_code == 200


@pytest.mark.parametrize(
    ("rule", "status"),
    [({"temperature": 1e-40}, 200), ({"temperature": 1e-7}, 200), ({"repetition_penalty": 5e-324}, 400)],
)
def test_numbers_next_to_nothing_do_not_break_the_engine(site: Site, rule: dict[str, float], status: int) -> None:
    """Logits divided by them are no numbers; the engine would fail, and everyone's answer with it."""
    program = site.program()
    greedy = program.post("/v1/chat/completions", json=CHAT | {"temperature": 0}).json()
    answer = program.post("/v1/chat/completions", json=CHAT | rule)
    assert answer.status_code == status
    if status == 200:
        assert answer.json()["choices"] == greedy["choices"]
    else:
        assert answer.json()["error"]["param"] == "repetition_penalty"


def test_who_leaves_gives_every_block_back(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with running_site(tmp_path, tokenizer, max_waiting=200) as made:
        engine, draw = made.app.state.house.engine, random.Random(5)

        def leave(seconds: float, streaming: bool) -> None:
            body = CHAT | {"max_tokens": 200, "n": 3, "stream": streaming}
            try:
                made.program().post("/v1/chat/completions", json=body, timeout=seconds)
            except httpx2.TimeoutException:
                return

        threads = [
            threading.Thread(target=leave, args=(draw.uniform(0.02, 0.5), bool(draw.getrandbits(1)))) for _ in range(24)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda: engine.num_running == 0)
        (model_engine,) = engine._engines.values()
        until(lambda: model_engine._engine.pool.num_used == 0)
        assert not model_engine.works
        assert not model_engine._engine.busy


def count_alive(*kinds: type) -> int:
    return sum(issubclass(type(one), kinds) for one in gc.get_objects())  # asks no object anything


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_has_ended_is_freed_without_the_cyclic_collector(site: Site, stream: bool) -> None:
    """Else tokens pile up until the collector's rarest pass."""
    program = site.program()
    gc.collect()
    before = count_alive(Answers, Order)
    gc.disable()
    try:
        for path in ("/v1/chat/completions", "/v1/completions"):
            asked = CHAT | {"prompt": "Anna", "n": 2, "stream": stream}
            assert program.post(path, json=asked).status_code == 200
        until(lambda: count_alive(Answers, Order) <= before)
    finally:
        gc.enable()


def test_a_model_that_serves_no_more_is_freed(tmp_path: Path, tokenizer: Tokenizer) -> None:
    gc.collect()
    before = count_alive(LanguageModel)
    with running_site(tmp_path, tokenizer, models=2) as made:
        engine, program = made.app.state.house.engine, made.program()
        for turn in range(1, 5):
            assert program.post("/v1/chat/completions", json=CHAT).status_code == 200
            name = f"model-{turn % 2}"
            serve(made.store, name, round=turn % 2, actor="test")
            until(lambda wanted=name: engine.served_name == wanted)
        until(lambda: count_alive(LanguageModel) <= before + 1)


def test_what_does_not_fit_the_cache_at_once_waits_and_is_answered(tmp_path: Path, tokenizer: Tokenizer) -> None:
    stops = {str(id_): -100 for id_ in tokenizer.reserved.ends()}
    with running_site(tmp_path, tokenizer, context=1024, cache_mebibytes=1, max_running=16) as made:
        body = CHAT | {"max_tokens": 300, "n": 16, "logit_bias": stops}
        (answer,) = ask_at_once(made, [body])
        assert answer.status_code == 200
        assert {choice["finish_reason"] for choice in answer.json()["choices"]} == {"length"}
        (model_engine,) = made.app.state.house.engine._engines.values()
        blocks = model_engine._engine.pool.num_blocks
        assert model_engine._engine.scheduler.num_preemptions > 0
        assert blocks * 16 < 16 * 300 < 1024 * 16  # so they did not fit


def test_more_than_the_queue_holds_is_refused_for_now_and_for_ever(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with running_site(tmp_path, tokenizer, max_running=2, max_waiting=2) as made:
        answers = ask_at_once(made, [CHAT | {"max_tokens": 150, "n": 2}] * 8)
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 429}
        assert all(answer.headers["retry-after"] for answer in answers if answer.status_code == 429)
        never = made.program().post("/v1/chat/completions", json=CHAT | {"n": 5})
        assert (never.status_code, never.json()["error"]["param"]) == (400, "n")
        assert never.headers["x-should-retry"] == "false"
