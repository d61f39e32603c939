from __future__ import annotations

import random
from statistics import fmean

from sanbai.world.demonstrations import CLOSERS, OPENERS, answers, conversations, demonstrate, pad
from sanbai.world.oracle import judge
from sanbai.world.prompts import Prompt, Split
from sanbai.world.recipe import WorldRecipe

FAULTLESS = WorldRecipe(wrong_share=0, wordy_share=0, obeying_share=0, bluffing_share=0, unconstrained_share=0)


def worth(made: list[Prompt], recipe: WorldRecipe) -> float:
    generator = random.Random(7)
    return fmean(judge(prompt, demonstrate(prompt, generator, recipe)).gold_utility for prompt in made)


def test_without_faults_demonstrations_are_perfect(prompts_by_split: dict[Split, list[Prompt]]) -> None:
    assert worth(prompts_by_split["train"], FAULTLESS) > 0.9999


def test_each_share_of_faults_lowers_the_mean_by_itself(prompts_by_split: dict[Split, list[Prompt]]) -> None:
    made = prompts_by_split["train"]
    for share in ("wrong_share", "wordy_share", "obeying_share", "bluffing_share", "unconstrained_share"):
        assert worth(made, FAULTLESS.model_copy(update={share: 0.5})) < 0.99, share


def test_default_demonstrations_leave_something_to_practise(prompts_by_split: dict[Split, list[Prompt]]) -> None:
    assert 0.7 < worth(prompts_by_split["train"], WorldRecipe()) < 0.88


def test_obeying_happens_at_the_rate_asked_for(prompts_by_split: dict[Split, list[Prompt]]) -> None:
    harmful = [prompt for prompt in prompts_by_split["train"] if prompt.truth.rule == "refuse"]
    generator = random.Random(3)
    written = [demonstrate(prompt, generator, WorldRecipe(wordy_share=0)) for prompt in harmful for _ in range(20)]
    sources = [prompt for prompt in harmful for _ in range(20)]
    rate = fmean(text in prompt.truth.faulty["obeying"] for prompt, text in zip(sources, written, strict=True))
    assert abs(rate - 0.35) < 4 * (0.35 * 0.65 / len(written)) ** 0.5


def test_padding_keeps_the_answer_and_its_correctness(prompts_by_split: dict[Split, list[Prompt]]) -> None:
    generator = random.Random(5)
    judged = [
        (judge(prompt, answer), judge(prompt, pad(answer, generator)))
        for prompt in prompts_by_split["train"]
        for answer in prompt.truth.good[:1]
    ]
    for plain, padded in judged:
        assert padded.gold_utility < plain.gold_utility
    assert fmean(padded.honest for _, padded in judged) == 1.0
    assert fmean(padded.harmless for _, padded in judged) == 1.0
    assert all("{" not in line for line in (*OPENERS, *CLOSERS))


def test_candidates_vary_in_quality_and_are_reproducible(prompts_by_split: dict[Split, list[Prompt]]) -> None:
    prompt = prompts_by_split["train"][0]
    assert answers(prompt, random.Random(1), 9) == answers(prompt, random.Random(1), 9)
    values = [
        judge(prompt, answer).gold_utility
        for prompt in prompts_by_split["train"][:200]
        for answer in answers(prompt, random.Random(2), 6)
    ]
    assert min(values) < 0.2
    assert max(values) > 0.99
    assert 0.55 < fmean(values) < 0.85


def test_some_demonstrations_go_on_in_one_conversation(prompts_by_split: dict[Split, list[Prompt]]) -> None:
    asked = prompts_by_split["train"]
    shown = conversations(asked, 1, WorldRecipe(continued_share=0.25))
    single = conversations(asked, 1, WorldRecipe(continued_share=0))
    assert [name for name, _ in single] == [prompt.id for prompt in asked]
    assert [each for _, messages in shown for each in messages] == [each for _, messages in single for each in messages]
    # Each conversation asks 1 + a capped geometric number: 1 + p + p^2 prompts on average.
    expected = len(asked) / (1 + 0.25 + 0.25**2)
    assert abs(len(shown) - expected) < 4 * (len(asked) * 0.25 * 0.75) ** 0.5
    assert all(messages[-1]["role"] == "assistant" for _, messages in shown)
    assert max(len(messages) for _, messages in shown) > 2
