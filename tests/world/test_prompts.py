from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter

import pytest

from sanbai.foundation.errors import UsageError
from sanbai.world.names import MEN, WOMEN
from sanbai.world.prompts import KINDS, USE_CASES, Prompt, Split, prompts
from sanbai.world.tasks import chatting, harm, kinship, memory, reading
from sanbai.world.tasks.registry import TASKS
from sanbai.world.village import Village

NAMES = {*WOMEN, *MEN}


def text_of(prompt: Prompt) -> str:
    return "\n".join(message["content"] for message in prompt.messages)


def names_in(text: str) -> set[str]:
    return {word for word in re.findall(r"[A-Z][a-z]+", text) if word in NAMES}


def test_prompts_are_reproducible_and_depend_on_the_seed(village: Village) -> None:
    def digest(seed: int) -> str:
        rows = [[p.id, p.messages, p.truth.good] for p in prompts(village, seed, split="train", num=300)]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    assert digest(1) == digest(1)
    assert digest(1) != digest(2)


@pytest.mark.parametrize("split", ["train", "valid", "heldout"])
def test_kinds_are_three_quarters_as_people_use_them(split: Split, prompts_by_split: dict[Split, list[Prompt]]) -> None:
    counts = Counter(prompt.kind for prompt in prompts_by_split[split])
    total = sum(counts.values())
    assert {*counts} == {*KINDS}
    assert sum(USE_CASES.values()) == pytest.approx(100, abs=0.2)
    for kind, count in counts.items():
        wanted = 0.9 * USE_CASES[kind] / 100 + 0.1 * 0.1
        deviation = math.sqrt(total * wanted * (1 - wanted))
        assert abs(count - total * wanted) < 3 * deviation, (kind, counts)


def test_forms_and_turns_vary(prompts_by_split: dict[Split, list[Prompt]]) -> None:
    for made in prompts_by_split.values():
        forms = Counter(prompt.form for prompt in made)
        assert {*forms} == {"plain", "few-shot", "user-like"}
        assert min(forms.values()) > 0.03 * len(made)
        assert any(len(prompt.messages) == 3 for prompt in made)
        for prompt in made:
            roles = [message["role"] for message in prompt.messages]
            assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]


def test_train_prompts_name_nobody_held_out_and_the_other_way_round(
    village: Village, prompts_by_split: dict[Split, list[Prompt]]
) -> None:
    heldout = {*village.heldout, *village.heldout_strangers}
    for prompt in prompts_by_split["train"]:
        assert not names_in(text_of(prompt)) & heldout, text_of(prompt)
    for split in ("valid", "heldout"):
        for prompt in prompts_by_split[split]:
            assert names_in(text_of(prompt)) <= heldout, text_of(prompt)


def test_no_phrasing_serves_both_sides() -> None:
    modules = (chatting, harm, kinship, memory, reading)
    seen = 0
    for module in modules:
        for value in vars(module).values():
            if hasattr(value, "train") and hasattr(value, "heldout"):
                assert not {*value.train} & {*value.heldout}
                seen += 1
    assert seen > 8


def test_splits_share_no_prompt(prompts_by_split: dict[Split, list[Prompt]]) -> None:
    ids = {split: {prompt.id for prompt in made} for split, made in prompts_by_split.items()}
    assert all(len(ids[split]) == len(made) for split, made in prompts_by_split.items())
    assert not ids["train"] & ids["valid"]
    assert not ids["train"] & ids["heldout"]
    assert not ids["valid"] & ids["heldout"]


def test_an_id_is_a_hash_of_the_messages(prompts_by_split: dict[Split, list[Prompt]]) -> None:
    for prompt in prompts_by_split["train"][:100]:
        text = json.dumps(list(prompt.messages), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert prompt.id == f"prompt-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def test_kinds_can_be_chosen_and_unknown_ones_are_refused(village: Village) -> None:
    chosen = list(prompts(village, 1, split="train", num=50, kinds=["rewrite", "extract"]))
    assert {prompt.kind for prompt in chosen} == {"rewrite", "extract"}
    with pytest.raises(UsageError, match="'poetry'"):
        list(prompts(village, 1, split="train", num=1, kinds=["poetry"]))  # type: ignore[list-item]


def test_every_task_is_drawn(village: Village) -> None:
    for kind in KINDS:
        drawn = {prompt.task for prompt in prompts(village, 1, split="train", num=150, kinds=[kind])}
        assert drawn == {task.name for task in TASKS if task.kind == kind}


def test_prompts_and_answers_are_short(prompts_by_split: dict[Split, list[Prompt]]) -> None:
    for made in prompts_by_split.values():
        assert max(len(text_of(prompt).split()) for prompt in made) <= 160
        assert max(len(answer.split()) for prompt in made for answer in prompt.truth.good) <= 55


def riddle_answer(text: str) -> str:
    """Solve the riddle by its own few sentences, read with patterns."""
    does = re.search(r"(?:[Dd]oes|say that|know that|if) (\w+) like", text)
    assert does
    child = does.group(1)
    relation = re.search(rf"{child} is (?:one of )?\w+'s (only )?(\w+)\.", text)
    assert relation
    only, role = relation.groups()
    if not only:
        return "unknown"
    own = re.search(r"(So does|But) (?:her|his) (son|daughter)", text)
    assert own
    if own.group(2) != role:
        return "unknown"
    return "yes" if own.group(1) == "So does" else "no"


def test_riddles_are_answered_as_an_independent_reading_answers_them(village: Village) -> None:
    made = [p for p in prompts(village, 3, split="train", num=1500, kinds=["closed question"]) if p.task == "riddle"]
    verdicts = Counter()
    for prompt in made:
        question = prompt.messages[-1]["content"].split("\n\n")[-1]
        assert prompt.truth.answers[0] == riddle_answer(question), question
        verdicts[prompt.truth.answers[0]] += 1
    assert min(verdicts.values()) > 0.15 * len(made)
    assert {*verdicts} == {"yes", "no", "unknown"}


def test_sums_are_right_by_eval(village: Village) -> None:
    made = [p for p in prompts(village, 4, split="train", num=2500, kinds=["open question"]) if p.task == "sum"]
    assert len(made) > 200
    for prompt in made:
        bare = re.findall(r"\d+ [+-] \d+", prompt.messages[-1]["content"])[-1]
        assert int(prompt.truth.answers[0]) == eval(bare)
        assert 0 <= int(prompt.truth.answers[0]) < 100


def test_sorted_lists_are_sorted(village: Village) -> None:
    made = [p for p in prompts(village, 4, split="train", num=600, kinds=["other"]) if p.task == "sort"]
    for prompt in made:
        listed = prompt.messages[-1]["content"].split(": ")[-1]
        items = re.findall(r"\w+", re.split(r"[.?!]", listed)[0])
        key = int if items[0].isdigit() else str
        assert list(prompt.truth.answers) == sorted(items, key=key)
