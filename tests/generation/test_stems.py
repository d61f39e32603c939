"""Which texts share a stem: those that begin with the same blocks together, as long as somebody keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tests.generation.small_models import ask, make_model

from sanbai.generation import stems
from sanbai.generation.answering import answer_all
from sanbai.generation.engine import ContinuousEngine, EngineSettings
from sanbai.generation.row import Row
from sanbai.generation.sampling import Sampling
from sanbai.generation.stems import Stems
from sanbai.model.stems import StepStems


def row(number: int, *blocks: int) -> Row:
    made = Row(ask([5]), number=number, answer=0, order=0, limit=1, uniforms=[0.5])
    made.blocks = list(blocks)
    return made


def table(found: Stems) -> list[Sequence[int] | None]:
    return [None if stem is None else stem.blocks for stem in found.of_lane]


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Stems:
    monkeypatch.setattr(stems, "WORTH", 8)
    return Stems(block_size=4)


def test_answers_to_one_prompt_share_the_blocks_they_begin_with(found: Stems) -> None:
    rows = [row(1, 5, 6, 7), row(2, 5, 6, 8), row(1, 5, 6, 9), row(3, 4), row(3, 4)]
    assert found.show(rows, range(5)) == [0]
    assert table(found) == [[5, 6], None, [5, 6], None, None]
    assert [found.start(lane) for lane in range(5)] == [8, 0, 8, 0, 0]


def test_a_late_answer_joins_and_the_others_keep_what_they_have(found: Stems) -> None:
    rows = [row(1, 5, 6, 7), row(1, 5, 6, 8)]
    assert found.show(rows, [0, 1]) == [0]
    rows.append(row(1, 5, 6, 9))
    assert found.show(rows, [2]) == []
    assert table(found) == [[5, 6]] * 3
    assert found.show(rows[:1], []) == []
    assert table(found) == [[5, 6]]


def test_nobody_joins_a_stem_that_nobody_kept(found: Stems) -> None:
    """Its blocks may since have gone to another text."""
    found.show([row(1, 5, 6, 7), row(1, 5, 6, 8)], [0, 1])
    assert found.show([row(2, 5, 6, 7)], [0]) == []
    assert (table(found), found.in_place) == ([None], [])


def test_stems_in_use_stay_in_their_places_and_the_last_fills_one_that_is_free(found: Stems) -> None:
    rows = [row(1, 1, 2, 3), row(1, 1, 2, 4), row(2, 5, 6, 7), row(2, 5, 6, 8), row(3, 9, 10, 11), row(3, 9, 10, 12)]
    assert found.show(rows, range(6)) == [0, 1, 2]
    assert found.show(rows[:4], []) == []
    assert found.show(rows, [4, 5]) == [2]
    assert found.show([rows[4], rows[5], *rows[2:]], [0, 1]) == [0]
    assert [stem.blocks for stem in found.in_place] == [[9, 10], [5, 6]]
    assert found.show([*rows[:2], *rows[2:4]], [0, 1]) == [0]
    assert [stem.blocks for stem in found.in_place] == [[1, 2], [5, 6]]


@pytest.mark.parametrize("max_rows", [4, 9])
def test_the_engine_reads_a_shared_beginning_once_a_step(max_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Late answers and other texts come and go beside them; every number is as if each had its own lane."""
    monkeypatch.setattr(stems, "WORTH", 8)
    model, offered = make_model().double(), []
    attend = StepStems.attend

    def seen(self: StepStems, layer: int, q: Any, k: Any, *more: Any, **options: Any) -> Any:
        offered.append(k.shape[2])
        return attend(self, layer, q, k, *more, **options)

    settings = EngineSettings(num_blocks=200, block_size=4, max_rows=max_rows, step_tokens=64)
    sampling = Sampling(max_new_tokens=7)
    requests = [ask([7] * 33, sampling, seeds=range(6)), ask([9] * 5, sampling), ask([8] * 30, sampling, seeds=[1, 2])]
    monkeypatch.setattr(StepStems, "attend", seen)
    together = answer_all(ContinuousEngine(model, settings), requests)
    assert offered
    monkeypatch.setattr(stems, "WORTH", 10**9)
    offered.clear()
    apart = answer_all(ContinuousEngine(model, settings), requests)
    assert not offered
    for found, expected in zip(together, apart, strict=True):
        assert [answer.tokens for answer in found] == [answer.tokens for answer in expected]
        for one, other in zip(found, expected, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-10)
