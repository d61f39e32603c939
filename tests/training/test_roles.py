"""Numbers do not depend on who does the work: in turns, on copies in other processes, on a Ray cluster."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tests.training.conftest import Open, assert_same_bits
from tests.training.test_ppo import LEARNING, RECIPE, metrics_of, start
from torch import Tensor

from sanbai.data.packing import EncodedItems
from sanbai.foundation.device import Compute
from sanbai.foundation.errors import Interrupted, ModelError, ResourceError
from sanbai.foundation.run import read_metrics
from sanbai.foundation.seeds import torch_generator
from sanbai.foundation.stage import Stage
from sanbai.generation.answering import batches_of
from sanbai.generation.weights import weights_digest
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.text.tokenizer import Tokenizer
from sanbai.training import ppo, roles
from sanbai.training.optimizer import Optimizer
from sanbai.training.reward_model import Calibration, RewardModel
from sanbai.training.roles import Models, RolesRecipe, hands
from sanbai.training.rollouts import Rollouts

HAS_RAY = importlib.util.find_spec("ray") is not None
#: Few answers a batch and a group, so that there is something to deal out; a rate at which stale is not the same.
SMALL = RECIPE.model_copy(
    update={"num_iterations": 3, "learning_rate": 3e-2, "rollout_rows": 3, "checkpoint_iterations": 100}
)

Outcome = tuple[dict[str, Tensor], list[dict[str, float]]]
TrainWith = Callable[..., Outcome]


@pytest.fixture
def train_with(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> TrainWith:
    """Trains with roles under a name, and returns weights and metrics; the reward is a model of its own."""
    scorer = ScalarModel.from_language_model(copy.deepcopy(model), torch_generator(7, "reward"))
    reward = RewardModel(scorer, Calibration(1, 0.0, 0.0, 1.0), compute)

    def train(name: str, prepare: Callable[[Stage], None] = lambda _: None, **changes: Any) -> Outcome:
        changes["roles"] = RolesRecipe(**changes.pop("roles", {}))
        stage = open_stage(name)
        prepare(stage)
        start(stage, compute, model, tokenizer, items, SMALL.model_copy(update=changes), reward=reward)
        return load_file(stage.folder / "model.safetensors"), read_metrics(stage.run.folder)

    return train


def assert_same_outcome(first: Outcome, second: Outcome) -> None:
    assert_same_bits(first[0], second[0])
    assert first[1] == second[1]


@pytest.mark.parametrize("num", [1, 2, 3, 7, 50])
def test_every_nth_batch_alone_is_answered_in_the_same_batches(num: int) -> None:
    prompts = [[0] * (1 + number * 7 % 5) + [number % 3] for number in range(41)]
    batches = batches_of(prompts, 4)
    assert sorted(itertools.chain.from_iterable(batches)) == list(range(41))
    for hand in hands(batches, num):
        rows = [row for batch in hand for row in batch]
        alone = batches_of([prompts[row] for row in rows], 4)
        assert [[rows[place] for place in batch] for batch in alone] == list(hand)


@pytest.mark.parametrize("staleness", [0, 1])
def test_taking_turns_changes_no_number(train_with: TrainWith, staleness: int) -> None:
    alone = train_with("alone", staleness=staleness)
    for rollout_workers, learners in ((2, 0), (1, 1), (3, 2), (50, 50)):
        shared = {"rollout_workers": rollout_workers, "learners": learners}
        assert_same_outcome(alone, train_with(f"{shared}", staleness=staleness, roles=shared))


class Sent:
    """Stands for actors on one other machine: all that goes there and comes back is pickled."""

    are_elsewhere = True

    def __init__(self, worker: Any, num: int, _: RolesRecipe, leave_if_asked: Callable[[], None]) -> None:
        self.workers = [pickle.loads(pickle.dumps(worker.elsewhere())) for _ in range(num)]
        self.leave_if_asked = leave_if_asked

    def load(self, weights: Mapping[str, Tensor]) -> None:
        for worker in self.workers:
            worker.models.load(pickle.loads(pickle.dumps(dict(weights))), weights_digest(weights))

    def deal(self, work: Callable[..., Any], parts: Sequence[Any], common: Any) -> list[Any]:
        self.leave_if_asked()
        dealt = pickle.loads(pickle.dumps((hands(parts, len(self.workers)), common)))
        done = [work(worker, hand, dealt[1]) for worker, hand in zip(self.workers, dealt[0], strict=False)]
        return list(zip(dealt[0], pickle.loads(pickle.dumps(done)), strict=True))

    def close(self) -> None:
        pass


@pytest.mark.parametrize("staleness", [0, 1])
def test_workers_on_copies_give_the_same_numbers(
    train_with: TrainWith, monkeypatch: pytest.MonkeyPatch, staleness: int
) -> None:
    here = train_with("here", staleness=staleness)
    monkeypatch.setattr(ppo, "open_workers", Sent)
    there = train_with("there", staleness=staleness, roles={"rollout_workers": 2, "learners": 2})
    assert_same_outcome(here, there)


def test_stopped_while_a_batch_is_under_way_elsewhere_the_run_gathers_it_again_by_the_same_weights(
    train_with: TrainWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first start is asked to stop in the middle of its first update, and the next batch never comes before."""
    undisturbed = train_with("undisturbed", staleness=1)
    may_come = threading.Event()
    stages: list[Stage] = []
    steps: list[float] = []
    step = Optimizer.step

    class Slow(Sent):
        def deal(self, *given: Any) -> list[Any]:
            while threading.current_thread().name.startswith("ahead") and not may_come.is_set():
                self.leave_if_asked()
                time.sleep(0.01)
            return super().deal(*given)

    def counting(self: Optimizer, rate: float) -> float:
        steps.append(rate)
        if len(steps) == 4:
            stages[0].job.stop.request()
        return step(self, rate)

    monkeypatch.setattr(ppo, "open_workers", Slow)
    monkeypatch.setattr(Optimizer, "step", counting)
    with pytest.raises(Interrupted):
        train_with("stopped", stages.append, staleness=1)
    (checkpoint,) = (stages[0].run.folder / "checkpoints").glob("*")
    with safe_open(checkpoint, "pt") as file:
        held = {name for name in file.keys() if name.startswith("ahead:")}  # noqa: SIM118 - not a mapping
        assert int(file.get_tensor("buffer:num_steps")) == 2
    assert held
    assert all(name.startswith("ahead:weights/policy:") for name in held)
    may_come.set()
    assert_same_outcome(undisturbed, train_with("stopped", staleness=1))


@pytest.mark.parametrize("staleness", [0, 1])
def test_each_batch_is_answered_by_the_policy_of_so_many_updates_before(
    train_with: TrainWith, monkeypatch: pytest.MonkeyPatch, staleness: int
) -> None:
    answered: list[str] = []
    answer, open_watch = roles.sample, ppo.Watch.open.__func__  # type: ignore[attr-defined]

    def noting(policy: LanguageModel, *given: Any, **named: Any) -> Rollouts:
        answered.append(weights_digest(policy.state_dict()))
        return answer(policy, *given, **named)

    seen: list[LanguageModel] = []

    def opening(cls: Any, *given: Any, policy: LanguageModel, **named: Any) -> Any:
        seen.append(policy)
        return open_watch(cls, *given, policy=policy, **named)

    after: list[str] = []

    def prepare(stage: Stage) -> None:
        record = stage.run.record

        def noting_weights(number: int, **metrics: float) -> None:
            if "kl" in metrics:
                after.append(weights_digest(seen[0].state_dict()))
            record(number, **metrics)

        stage.run.record = noting_weights  # type: ignore[method-assign]

    monkeypatch.setattr(roles, "sample", noting)
    monkeypatch.setattr(ppo.Watch, "open", classmethod(opening))
    train_with("run", prepare, staleness=staleness)
    first = answered[0]
    policies = [first, *after]  # before the first update, and after each
    assert len(set(policies)) == 4
    assert answered == [policies[max(0, number - staleness)] for number in range(3)]


def test_a_stale_batch_counts_its_tokens_by_how_the_policy_would_draw_them_now(train_with: TrainWith) -> None:
    _, rows = train_with("stale", staleness=1, importance_cap=1.2)
    first, *others = [row for row in rows if "importance" in row]
    assert first["importance"] == 1.0  # it is not stale
    assert first["importance_capped"] == 0.0
    for row in others:
        assert row["importance"] != 1.0
        assert 0.0 < row["importance_capped"] < 1.0
        assert row["max_mismatch"] < 1e-4  # the sampler's numbers are those of the policy that answered
    _, plain = train_with("plain", num_iterations=1, staleness=0)
    assert {name: plain[1][name] for name in plain[1]} == {name: rows[1][name] for name in plain[1]}


def test_a_known_reward_rises_though_answers_are_stale(
    open_stage: Open, compute: Compute, model: LanguageModel, tokenizer: Tokenizer, items: EncodedItems
) -> None:
    stage = open_stage()
    metrics = start(stage, compute, model, tokenizer, items, LEARNING.model_copy(update={"staleness": 1}))
    rewards = metrics_of(stage, "reward")
    assert rewards[0] < 2.0
    assert sum(rewards[-3:]) / 3 > rewards[0] + 1.0
    assert metrics["judge_reward"] > metrics["judge_reward_before"]


def test_weights_that_change_on_their_way_are_noticed(model: LanguageModel) -> None:
    sender, receiver = Models(model, None), Models(copy.deepcopy(model), None)
    digest = weights_digest(sender.weights())
    receiver.load(sender.weights(), digest)
    damaged = {name: tensor.clone() for name, tensor in sender.weights().items()}
    next(iter(damaged.values())).view(torch.int32)[0, 0] ^= 1
    with pytest.raises(ModelError, match="not what was sent"):
        receiver.load(damaged, digest)


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_without_ray_one_line_says_what_to_install(train_with: TrainWith) -> None:
    with pytest.raises(ResourceError, match=r"sanbai\[cluster\]"):
        train_with("run", roles={"place": "ray"})


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """The first that trains on Ray starts a cluster on this machine; it ends with these tests."""
    import ray

    yield ray
    ray.shutdown()


ON_RAY = {"place": "ray", "rollout_workers": 2, "learners": 2, "worker_cpus": 0.25}


@pytest.mark.skipif(not HAS_RAY, reason="needs the extra cluster")
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_on_a_ray_cluster_the_numbers_are_the_same(train_with: TrainWith, cluster: Any) -> None:
    for staleness in (0, 1):
        here = train_with(f"here {staleness}", staleness=staleness)
        assert_same_outcome(here, train_with(f"there {staleness}", staleness=staleness, roles=ON_RAY))


@pytest.mark.skipif(not HAS_RAY, reason="needs the extra cluster")
@pytest.mark.filterwarnings("ignore")
def test_workers_that_are_killed_do_their_work_again(
    train_with: TrainWith, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sanbai.training.ray_workers import RayWorkers

    here = train_with("here", staleness=1)
    opened: list[Any] = []
    start_workers = RayWorkers.__init__

    def noting(self: Any, *given: Any) -> None:
        start_workers(self, *given)
        opened.append(self)

    monkeypatch.setattr(RayWorkers, "__init__", noting)
    killed: list[int] = []

    def prepare(stage: Stage) -> None:
        record = stage.run.record

        def killing(step: int, **metrics: float) -> None:
            record(step, **metrics)
            if "kl" in metrics and not killed:
                killed.extend(found for each in opened for _, found in each.deal(lambda *_: os.getpid(), [0], None))
                for process in killed:
                    os.kill(process, signal.SIGKILL)

        stage.run.record = killing  # type: ignore[method-assign]

    there = train_with("there", prepare, staleness=1, roles=ON_RAY)
    assert len(set(killed)) == 2  # a rollout worker and a learner
    assert_same_outcome(here, there)


@pytest.mark.skipif(not HAS_RAY, reason="needs the extra cluster")
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_without_room_or_that_is_not_there_is_told_in_one_line(train_with: TrainWith, cluster: Any) -> None:
    for changes, message in (
        ({"worker_cpus": 1000.0}, "CPU and 2 workers of 1000 are wanted; add nodes"),
        ({"address": "127.0.0.1:1"}, "no workers on this Ray cluster"),
    ):
        with pytest.raises(ResourceError, match=message) as raised:
            train_with(message, roles=ON_RAY | changes)
        assert "\n" not in str(raised.value)
        cluster.shutdown()
