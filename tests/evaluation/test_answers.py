from __future__ import annotations

from pathlib import Path

import pytest
from tests.evaluation.rows import Asked, Judged, scored

from sanbai.evaluation.answers import (
    answer_prompts,
    chat_contestant,
    read_answers,
    score_answers,
    transcript_contestant,
    write_answers,
)
from sanbai.evaluation.statistics import wilson
from sanbai.foundation.errors import DataError
from sanbai.generation.sampling import Sampling
from sanbai.model.heads import LanguageModel
from sanbai.text.chat_markup import Message
from sanbai.text.chat_template import encode_prompt
from sanbai.text.tokenizer import Tokenizer

SAMPLING = Sampling(temperature=1.0, max_new_tokens=6)
ASKED = [Asked(f"p{i}", f"the cow {i}?", kind="chat" if i % 2 else "rewrite") for i in range(5)]


def judge(prompt: Asked, answer: str) -> Judged:
    return Judged(length=len(answer.split()), gold_utility=len(answer) / 10, helpful=float("a" in answer))


def test_answers_do_not_depend_on_batch_or_on_the_other_prompts(model: LanguageModel, tokenizer: Tokenizer) -> None:
    contestant = chat_contestant("ppo", model, tokenizer, max_prompt_tokens=40)
    whole = answer_prompts(contestant, ASKED, judge, sampling=SAMPLING, seed=1, batch_size=8, num_samples=2)
    alone = answer_prompts(contestant, ASKED[3:4], judge, sampling=SAMPLING, seed=1, batch_size=1, num_samples=2)
    assert whole[6:8] == alone
    assert [(row.prompt, row.sample) for row in whole] == [(p.id, sample) for p in ASKED for sample in (0, 1)]
    assert whole != answer_prompts(contestant, ASKED, judge, sampling=SAMPLING, seed=2, batch_size=8, num_samples=2)


def test_the_judge_sees_the_text_of_the_tokens_without_the_stop(model: LanguageModel, tokenizer: Tokenizer) -> None:
    contestant = chat_contestant("ppo", model, tokenizer, max_prompt_tokens=40)
    for row in answer_prompts(contestant, ASKED, judge, sampling=SAMPLING, seed=1, batch_size=8):
        stopped = row.tokens[-1] in {tokenizer.reserved.end, tokenizer.reserved.end_of_text}
        assert stopped == (row.finish_reason == "stop")
        said = [token for token in row.tokens if token not in tokenizer.reserved_ids]
        assert row.answer == tokenizer.decode(said).strip()
        assert row.gold_utility == len(row.answer) / 10
        assert row.length == len(row.answer.split())


def test_chat_prompts_go_through_the_one_template(model: LanguageModel, tokenizer: Tokenizer) -> None:
    contestant = chat_contestant("ppo", model, tokenizer, max_prompt_tokens=40)
    assert contestant.encode(ASKED[0].messages) == encode_prompt(tokenizer, ASKED[0].messages)


def test_a_transcript_prompt_is_plain_text_and_its_answer_ends_at_the_next_speaker(
    model: LanguageModel, tokenizer: Tokenizer
) -> None:
    contestant = transcript_contestant("base", model, tokenizer, max_prompt_tokens=60)
    messages: list[Message] = [
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "The cow."},
        {"role": "user", "content": "Why?"},
    ]
    tokens = contestant.encode(messages)
    assert tokens[0] == tokenizer.reserved.end_of_text
    assert tokenizer.decode(tokens) == "Question: Who?\nAnswer: The cow.\nQuestion: Why?\nAnswer:"
    assert contestant.decode(tokenizer.encode(" milk.\nQuestion: more? Answer: no")) == "milk."
    assert contestant.decode(tokenizer.encode(" milk")) == "milk"
    short = transcript_contestant("base", model, tokenizer, max_prompt_tokens=8)
    assert len(short.encode(messages)) == 8


def test_scores_by_hand_overall_and_by_kind() -> None:
    rows = [
        scored("a", kind="chat", helpful=1, gold_utility=2.0),
        scored("b", kind="chat", helpful=0, gold_utility=0.5),
        scored("c", kind="rewrite", helpful=1, gold_utility=1.0, harmless=0.0),
    ]
    scores = score_answers(rows, seed=0)
    assert scores.overall["helpful"] == wilson(2, 3)
    assert scores.overall["harmless"] == wilson(2, 3)
    assert scores.overall["gold_utility"].mean == pytest.approx(3.5 / 3)
    assert scores.by_kind["chat"]["helpful"] == wilson(1, 2)
    assert scores.by_kind["rewrite"]["gold_utility"].n == 1
    assert scores.overall["cut"].mean == 0.0


def test_answers_survive_a_file_and_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    rows = [scored("a", answer="水车\n<|end|>"), scored("b")]
    for name in ("one.jsonl.gz", "two.jsonl.gz"):
        write_answers(tmp_path / name, rows)
    assert read_answers(tmp_path / "one.jsonl.gz") == rows
    assert (tmp_path / "one.jsonl.gz").read_bytes() == (tmp_path / "two.jsonl.gz").read_bytes()
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n')
    with pytest.raises(DataError, match=r"bad.jsonl:1: not a judged answer"):
        read_answers(tmp_path / "bad.jsonl")


def test_no_answer_is_an_error_in_words() -> None:
    with pytest.raises(DataError, match="at least one prompt"):
        score_answers([], seed=0)
