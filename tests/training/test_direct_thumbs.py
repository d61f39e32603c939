"""Direct preference from thumbs: KTO by TRL's definition on separate passes, what is learned, and what is not."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from tests.training.conftest import TRADES, Open, assert_same_bits
from tests.training.test_direct import of_method, rows_of, trade_logratios
from tests.training.test_reward import UTILITY, labeled, question
from torch import Tensor

from sanbai.data.rankings import Ranking
from sanbai.data.thumbs import ThumbedAnswer
from sanbai.foundation.device import Compute
from sanbai.foundation.errors import DataError
from sanbai.foundation.stage import Stage
from sanbai.model.heads import LanguageModel
from sanbai.text.tokenizer import Tokenizer
from sanbai.training import direct
from sanbai.training.direct import DirectRecipe, train_direct
from sanbai.training.ranked_prompts import RankedPrompt, collect_ranked_prompts

RECIPE = of_method("kto", learn_from="thumbs")
LIMITS = {"max_prompt_tokens": 32, "max_response_tokens": 24}


def thumb(number: int, trade: str, value: int, labeler: str = "ada") -> ThumbedAnswer:
    return ThumbedAnswer(f"{number}", question(number), f"a {trade}", value, finished=True, labeler=labeler)


def thumbed(num_prompts: int, *, first: int = 0, seed: int = 0) -> list[ThumbedAnswer]:
    """One answer a prompt, liked with probability σ(its utility)."""
    chance = random.Random(seed)
    thumbs = []
    for number in range(first, first + num_prompts):
        trade = chance.choice(TRADES)
        thumbs.append(thumb(number, trade, 1 if chance.random() < 1 / (1 + math.exp(-UTILITY[trade])) else -1))
    return thumbs


def start(
    stage: Stage,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    thumbs: Sequence[ThumbedAnswer],
    recipe: DirectRecipe = RECIPE,
    rankings: Sequence[Ranking] = (),
) -> dict[str, Any]:
    policy = copy.deepcopy(model)
    return train_direct(stage, recipe, compute, policy=policy, tokenizer=tokenizer, rankings=rankings, thumbs=thumbs)


def answer_logprob(model: LanguageModel, prompt: Sequence[int], answer: Sequence[int]) -> float:
    """By a pass of its own, in float64 after the logits."""
    with torch.no_grad():
        logprob_TV = model(torch.tensor([[*prompt, *answer]]))[0].double().log_softmax(-1)
    return sum(logprob_TV[len(prompt) - 1 + place, token].item() for place, token in enumerate(answer))


def test_a_steps_loss_is_trls_definition_on_separate_passes(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second step's: KL from each prompt with the next one's answer, then good and bad ones weighed apart."""
    seen: list[tuple[LanguageModel, Sequence[RankedPrompt]]] = []
    prefer = direct._prefer

    def spy(
        policy: LanguageModel, reference: LanguageModel, batch: Sequence[RankedPrompt], *rest: Any, **named: Any
    ) -> Any:
        seen.append((copy.deepcopy(policy), batch))
        return prefer(policy, reference, batch, *rest, **named)

    monkeypatch.setattr(direct, "_prefer", spy)
    recipe = of_method(
        "kto", learn_from="thumbs", validation_share=0.0, batch_prompts=12, num_epochs=2, beta=0.7,
        desirable_weight=1.3, undesirable_weight=2.1, micro_batch_tokens=60,
    )  # fmt: skip
    stage = open_stage()
    start(stage, compute, model, tokenizer, thumbed(12), recipe)
    policy, batch = seen[1]
    reference = model

    def logratio(prompt: Sequence[int], answer: Sequence[int]) -> float:
        return answer_logprob(policy, prompt, answer) - answer_logprob(reference, prompt, answer)

    pairs = [(element.tree.prompt, element.tree.answers[0]) for element in batch]
    mismatched = [logratio(pairs[place][0], pairs[(place + 1) % len(pairs)][1]) for place in range(len(pairs))]
    kl = max(0.0, sum(mismatched) / len(mismatched))
    ratios = [logratio(*pair) for pair in pairs]
    liked = [bool(element.thumbs_K2[0, 0]) for element in batch]
    assert {True, False} == set(liked)
    losses = [
        1.3 * (1 - 1 / (1 + math.exp(-0.7 * (h - kl)))) if up else 2.1 * (1 - 1 / (1 + math.exp(-0.7 * (kl - h))))
        for h, up in zip(ratios, liked, strict=True)
    ]
    second = rows_of(stage)[1]
    assert second["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    ups, downs = ([h for h, up in zip(ratios, liked, strict=True) if up is kind] for kind in (True, False))
    assert second["up_logratio"] == pytest.approx(sum(ups) / len(ups), abs=1e-4)
    assert second["down_logratio"] == pytest.approx(sum(downs) / len(downs), abs=1e-4)
    right = [(up > down) + (up == down) / 2 for up in ups for down in downs]
    assert second["thumb_accuracy"] == pytest.approx(sum(right) / len(right))
    assert "accuracy" not in second, "nothing was compared"


def test_the_policy_comes_to_like_what_people_liked(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    stage = open_stage()
    metrics = start(stage, compute, model, tokenizer, thumbed(400))
    ratios = trade_logratios(stage, compute, model, tokenizer)
    assert max(ratios[:2]) < ratios[2] < min(ratios[3:])  # liked in 2, 12, 50, 88 and 98 of 100
    assert metrics["validation_thumb_accuracy"] > 0.8
    assert metrics["validation_up_logratio"] > metrics["validation_down_logratio"]
    assert metrics["validation_loss"] < rows_of(stage)[0]["validation_loss"]
    assert metrics["num_thumbs_up"] + metrics["num_thumbs_down"] == metrics["num_prompts"]


def test_shuffled_thumbs_teach_nothing(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    """The control: the same answers, the same number of thumbs up and down, given to whichever answer."""
    given = thumbed(400)
    values = [each.value for each in given]
    random.Random(5).shuffle(values)
    shuffled = [
        ThumbedAnswer(each.id, each.messages, each.response, value, finished=True, labeler=each.labeler)
        for each, value in zip(given, values, strict=True)
    ]
    metrics = start(open_stage(), compute, model, tokenizer, shuffled)
    # The area under a ROC curve by chance has a deviation of sqrt((n + 1) / 12 n_up n_down).
    total = metrics["num_validation_prompts"]
    assert abs(metrics["validation_thumb_accuracy"] - 0.5) < 3 * math.sqrt((total + 1) / (12 * (total / 2) ** 2))


def test_thumbs_turned_round_teach_the_opposite(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    stage = open_stage()
    turned = [thumb(int(each.id), each.response.removeprefix("a "), -each.value) for each in thumbed(400)]
    start(stage, compute, model, tokenizer, turned)
    ratios = trade_logratios(stage, compute, model, tokenizer)
    assert min(ratios[:2]) > ratios[2] > max(ratios[3:])


def test_rankings_and_thumbs_are_learned_from_together(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    stage = open_stage()
    recipe = of_method("kto", learn_from="both")
    metrics = start(stage, compute, model, tokenizer, thumbed(60, first=1000), recipe, labeled(100))
    assert metrics["num_prompts"] + metrics["num_validation_prompts"] == 160
    first = rows_of(stage)[0]
    assert {"validation_accuracy", "validation_thumb_accuracy"} <= first.keys()
    ratios = trade_logratios(stage, compute, model, tokenizer)
    assert max(ratios[:2]) < min(ratios[3:])


def test_trap_25_killed_it_ends_in_the_same_bits(
    outcome_after_kills: Callable[..., dict[str, Tensor]], compute: Compute, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    rows: dict[str, list[dict[str, float]]] = {}

    def train(stage: Stage) -> None:
        start(stage, compute, model, tokenizer, thumbed(60))
        rows[stage.folder.parent.name] = rows_of(stage)

    killed, undisturbed = outcome_after_kills(train, "killed", (2, 5)), outcome_after_kills(train, "undisturbed")
    assert_same_bits(killed, undisturbed)
    assert rows["killed"] == rows["undisturbed"]


def test_everything_said_of_a_prompt_is_one_element(tokenizer: Tokenizer) -> None:
    ranking = Ranking("0", question(0), ("a baker", "a smith"), ((0,), (1,)), "bert")
    thumbs = [thumb(0, "smith", 1), thumb(0, "smith", 1, "carl"), thumb(0, "smith", -1, "dora"), thumb(0, "potter", -1)]
    (element,) = collect_ranked_prompts(tokenizer, [ranking], thumbs, **LIMITS)
    assert [tokenizer.decode(list(answer[:-1])) for answer in element.tree.answers] == [
        "a baker",
        "a smith",
        "a potter",
    ]
    assert element.preference_KK.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert element.thumbs_K2.tolist() == [[0, 0], [2, 1], [0, 1]]


def test_thumbs_on_answers_that_are_all_too_long_are_one_clear_line(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"at most 2 tokens above another, and none has a thumb; .*max_response_tokens"):
        collect_ranked_prompts(tokenizer, [], [thumb(0, "baker" * 9, 1)], max_prompt_tokens=32, max_response_tokens=2)
