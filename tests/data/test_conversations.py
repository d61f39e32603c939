from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sanbai.data.conversations import Conversation, ConversationSource, read_conversations
from sanbai.data.records import write_records
from sanbai.foundation.errors import DataError


def read(folder: Path, rows: list[Any], **options: Any) -> list[Conversation]:
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_conversations(folder, [ConversationSource(path="x.jsonl", **options)]))


def test_written_conversations_read_back_the_same(tmp_path: Path) -> None:
    turns = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": ""})
    write_records(tmp_path / "c.jsonl.gz", [Conversation("1", turns, "c.jsonl.gz")])
    assert list(read_conversations(tmp_path, [ConversationSource(path="c.jsonl.gz")])) == [
        Conversation("1", turns, "c.jsonl.gz")
    ]


def test_a_question_and_its_answer_become_two_turns(tmp_path: Path) -> None:
    row = {"id": 0, "instruction": "Add.", "input": "1 2", "output": "3"}
    [conversation] = read(
        tmp_path, [row], layout="pair", prompt_fields=("instruction", "input"), response_field="output"
    )
    assert conversation.id == "0"
    assert conversation.messages == (
        {"role": "user", "content": "Add.\n\n1 2"},
        {"role": "assistant", "content": "3"},
    )


def test_a_developer_becomes_the_system(tmp_path: Path) -> None:
    [conversation] = read(tmp_path, [{"messages": [{"role": "developer", "content": "x"}]}])
    assert conversation.messages[0]["role"] == "system"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "field 'messages': found nothing, wanted a list"),
        ({"messages": []}, "field 'messages': found an empty list"),
        ({"messages": ["hi"]}, "messages[0]: found str, wanted an object with role and content"),
        ({"messages": [{"role": "user"}]}, "messages[0]: no field 'content'"),
        ({"messages": [{"content": "x"}]}, "messages[0]: no field 'role'"),
        (
            {"messages": [{"role": "wizard", "content": "x"}]},
            "messages[0]: unknown role 'wizard'; wanted one of system",
        ),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0]: field 'content': found null, wanted text"),
    ],
)
def test_a_wrong_conversation_is_one_line_with_file_and_number(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, [row])
    assert str(error.value).startswith(f"{tmp_path / 'x.jsonl'}:1: {message}")


def test_an_empty_question_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fields instruction are empty, wanted a prompt"):
        read(tmp_path, [{"instruction": "", "response": "x"}], layout="pair")
