from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sanbai.data.prompts import KINDS, Prompt, read_prompts
from sanbai.data.records import write_records
from sanbai.foundation.errors import DataError

QUESTION = {"role": "user", "content": "Who bakes?"}


def test_written_prompts_read_back_the_same(tmp_path: Path) -> None:
    prompts = [Prompt(str(number), (QUESTION,), kind) for number, kind in enumerate(KINDS)]
    assert write_records(tmp_path / "p.jsonl", prompts) == 10
    assert list(read_prompts(tmp_path / "p.jsonl")) == prompts


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": [QUESTION], "kind": "riddle"}, "unknown kind 'riddle'; wanted one of generation"),
        ({"messages": [QUESTION]}, "no field 'kind'"),
        ({"messages": [{"role": "assistant", "content": "x"}], "kind": "chat"}, "the last message is the assistant's"),
    ],
)
def test_a_wrong_prompt_is_named(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Prompt.from_row(row, where="p.jsonl:3")
