from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from tests.training.conftest import Open
from tests.training.test_ppo import LEARNING, share_liked, start

from sanbai.data.packing import EncodedItems
from sanbai.foundation.device import Compute
from sanbai.foundation.stage import Stage
from sanbai.model.heads import LanguageModel
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.alarms import Alarms, AlarmsRecipe
from sanbai.training.brake import Brake, Verdict

HEALTHY = {
    "length": 10.0,
    "repetition": 0.1,
    "entropy": 2.0,
    "explained_variance": 0.3,
    "policy_grad_norm": 0.5,
}


def rung_by(recipe: AlarmsRecipe, *changes: dict[str, float]) -> dict[str, int]:
    """What rang, and when, over a healthy iteration and then these."""
    alarms = Alarms(recipe)
    for step, change in enumerate([{}, *changes], start=1):
        alarms.see(step, HEALTHY | change)
    return dict(alarms.rung)


def judged(recipe: AlarmsRecipe, *verdicts: tuple[float, float], kl_budget: float = 100.0) -> Alarms:
    """Alarms after verdicts of (judge_reward, reward); the KL is ten times the iteration."""
    alarms, brake = Alarms(recipe), Brake(patience=100, kl_budget=kl_budget)
    for step, (judge_reward, reward) in enumerate(verdicts):
        brake.see(Verdict(step, judge_reward, reward, kl=10.0 * step), {})
        alarms.judge(brake)
    return alarms


@pytest.mark.parametrize(
    ("name", "quiet", "ringing"),
    [
        ("length_drift", {"length": 20.0}, {"length": 20.1}),
        ("length_drift", {"length": 5.0}, {"length": 4.9}),
        ("repetition", {"repetition": 0.3}, {"repetition": 0.31}),
        ("entropy_collapse", {"entropy": 0.2}, {"entropy": 0.19}),
        ("dead_gradients", {"policy_grad_norm": 1.1e-7}, {"policy_grad_norm": 1e-7}),
    ],
)
def test_an_alarm_rings_beyond_its_threshold_and_not_at_it(
    name: str, quiet: dict[str, float], ringing: dict[str, float]
) -> None:
    assert rung_by(AlarmsRecipe(), quiet) == {}
    assert rung_by(AlarmsRecipe(), quiet, ringing) == {name: 3}
    assert rung_by(AlarmsRecipe.model_validate({name: "off"}), ringing) == {}


def test_a_critic_is_blind_after_enough_iterations_in_a_row() -> None:
    recipe = AlarmsRecipe(blind_critic_iterations=3)
    blind, seeing = {"explained_variance": 0.0}, {"explained_variance": 0.01}
    assert rung_by(recipe, blind, blind, seeing, blind, blind) == {}
    assert rung_by(recipe, blind, blind, blind) == {"blind_critic": 4}


def test_nothing_is_said_of_numbers_that_a_way_of_practising_has_not() -> None:
    alarms = Alarms(AlarmsRecipe(blind_critic_iterations=1, least_grad_norm=9.0))
    assert alarms.see(1, {"length": 10.0, "repetition": 0.1}) == []


def test_over_optimisation_is_the_judge_falling_while_the_reward_rises() -> None:
    recipe = AlarmsRecipe(over_optimisation_readings=2)
    assert judged(recipe, (0.0, 0.0), (1.0, 1.0), (0.5, 2.0)).rung == {}
    assert judged(recipe, (0.0, 0.0), (1.0, 1.0), (0.5, 2.0), (0.9, 1.1)).rung == {"over_optimisation": 3}
    assert judged(recipe, (0.0, 0.0), (1.0, 1.0), (0.5, 2.0), (1.0, 2.0)).rung == {}  # as good as the best
    assert judged(recipe, (0.0, 0.0), (1.0, 1.0), (0.5, 0.9), (0.5, 0.8)).rung == {}  # both fall: no hack
    assert judged(recipe, (0.0, 0.0), (1.0, 1.0), (1.1, 2.0), (1.2, 3.0)).rung == {}


def test_passing_the_kl_budget_rings_too() -> None:
    assert judged(AlarmsRecipe(), (0.0, 0.0), (1.0, 1.0), kl_budget=10.0).rung == {}
    assert judged(AlarmsRecipe(), (0.0, 0.0), (1.0, 1.0), kl_budget=9.9).rung == {"kl_budget": 1}


def test_an_alarm_says_what_was_found_and_wanted_and_what_to_do_and_says_it_once() -> None:
    alarms = Alarms(AlarmsRecipe())
    alarms.see(1, HEALTHY)
    (rang,) = alarms.see(2, HEALTHY | {"length": 31.0})
    assert str(rang).startswith("alarm length_drift at iteration 2: length is 31, wanted 5 to 20; read answers;")
    assert alarms.see(3, HEALTHY | {"length": 32.0}) == []
    assert alarms.stop_reason == ""


def test_an_alarm_that_stops_is_the_reason() -> None:
    alarms = Alarms(AlarmsRecipe(repetition="stop", length_drift="warn"))
    alarms.see(1, HEALTHY)
    alarms.see(2, HEALTHY | {"length": 31.0})
    assert alarms.stop_reason == ""
    alarms.see(3, HEALTHY | {"repetition": 0.9})
    assert alarms.stop_reason == "repetition"


def test_trap_25_loaded_alarms_go_on_counting() -> None:
    recipe = AlarmsRecipe(blind_critic_iterations=3, length_drift="stop")
    changes = [
        {},
        {"explained_variance": -1.0},
        {"length": 50.0, "explained_variance": -1.0},
        {"explained_variance": -1.0},
    ]
    undisturbed, resumed = Alarms(recipe), Alarms(recipe)
    for step, change in enumerate(changes, start=1):
        undisturbed.see(step, HEALTHY | change)
        saved = resumed.tensors()
        resumed = Alarms(recipe)
        resumed.load(saved)
        resumed.see(step, HEALTHY | change)
    assert resumed.rung == undisturbed.rung == {"length_drift": 3, "blind_critic": 4}
    assert resumed.stop_reason == "length_drift"


STRICTER: dict[str, Any] = {
    "over_optimisation": "off",
    "over_optimisation_readings": 1,
    "length_drift": "off",
    "most_length_drift": 1.5,
    "repetition": "off",
    "most_repetition": 0.05,
    "entropy_collapse": "off",
    "least_entropy": 0.9,
    "blind_critic": "off",
    "blind_critic_iterations": 1,
    "dead_gradients": "off",
    "least_grad_norm": 0.6,
}


@pytest.mark.parametrize("field", STRICTER)
def test_trap_28_every_field_changes_what_rings(field: str) -> None:
    assert STRICTER.keys() == AlarmsRecipe.model_fields.keys()
    ill = {"length": 17.0, "repetition": 0.2, "entropy": 1.0, "explained_variance": -1.0}
    wrong = {"length": 99.0, "repetition": 0.9, "entropy": 0.0, "explained_variance": -1.0, "policy_grad_norm": 0.0}

    def trace(recipe: AlarmsRecipe) -> list[dict[str, int]]:
        verdicts = judged(recipe, (1.0, 0.0), (0.9, 1.0), (0.8, 2.0)).rung
        return [rung_by(recipe, ill), rung_by(recipe, *[wrong] * 20), dict(verdicts)]

    plain = AlarmsRecipe()
    assert trace(plain.model_copy(update={field: STRICTER[field]})) != trace(plain)


def events(stage: Stage) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (stage.run.folder / "log.jsonl").read_text().splitlines()]


def test_a_reward_that_is_hacked_by_length_rings_and_is_on_record(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    """The reward model pays for short answers; what people want is something else."""

    def brevity(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        return [-len(response) / 4 for response in responses]

    def substance(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        return [len(response) / 4 for response in responses]

    stage = open_stage()
    recipe = LEARNING.model_copy(
        update={"num_iterations": 15, "judge_iterations": 5, "max_new_tokens": 20, "unfinished_penalty": 0.0,
                "kl_coef": 0.0, "learning_rate": 2e-2}
    )  # fmt: skip
    metrics = start(stage, compute, model, tokenizer, items, recipe, reward=brevity, judge=substance)
    assert {"over_optimisation", "length_drift"} <= metrics["alarms"].keys()
    assert metrics["kept_iteration"] == 0
    rang = {event["alarm"]: event["step"] for event in events(stage) if event["event"] == "stage.alarm"}
    assert rang == metrics["alarms"]


def test_a_healthy_run_sets_off_no_alarm(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    stage = open_stage()
    recipe = LEARNING.model_copy(update={"judge_iterations": 5})
    metrics = start(stage, compute, model, tokenizer, items, recipe, reward=share_liked, judge=share_liked)
    assert metrics["judge_reward"] > metrics["judge_reward_before"] + 1.0
    assert metrics["alarms"] == {}


def test_an_alarm_can_end_training(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    stage = open_stage()
    recipe = LEARNING.model_copy(update={"alarms": AlarmsRecipe(dead_gradients="stop", least_grad_norm=1e9)})
    metrics = start(stage, compute, model, tokenizer, items, recipe)
    assert metrics["stop_reason"] == "dead_gradients"
    assert metrics["iterations"] == 1
