"""The plain log: a line when a stage starts and when it ends, and nothing on standard output."""

import pytest

from sanbai.foundation.progress import LineProgress


def test_a_stage_is_a_line_at_its_start_and_one_at_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    view = LineProgress()
    bar = view.task("shards", 3)
    bar.advance(1, documents=1.0)
    bar.finish()
    out, talk = capsys.readouterr()
    assert out == ""
    first, last = talk.splitlines()
    assert first == "shards start steps=3"
    assert last.startswith("shards done seconds=")


def test_between_them_at_most_a_line_every_ten_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("sanbai.foundation.progress.time.monotonic", lambda: now)
    bar = LineProgress().task("pretrain", 100)
    for step in range(41):
        bar.advance(step, loss=2.0)
        now += 0.5
    lines = capsys.readouterr().err.splitlines()[1:]
    assert lines == [
        "pretrain step=20/100 speed=2/s left=40s loss=2",
        "pretrain step=40/100 speed=2/s left=30s loss=2",
    ]


def test_a_rate_is_given_once_it_is_known(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("sanbai.foundation.progress.time.monotonic", lambda: now)
    bar = LineProgress().task("sample answers", 5)
    for step in (1, 2):
        now += 12.0
        bar.advance(step, answers=12792.0, rate=0.002)
    lines = capsys.readouterr().err.splitlines()[1:]
    assert lines == [
        "sample answers step=1/5 answers=12792 rate=0.002",
        "sample answers step=2/5 speed=0.0417/s left=72s answers=12792 rate=0.002",
    ]
