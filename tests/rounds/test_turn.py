"""A round's course on small pieces: what it notes, what a killed one keeps, what it refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sanbai.data.prompts import Prompt
from sanbai.data.rankings import Ranking
from sanbai.feedback.accounts import Account, add_account
from sanbai.feedback.consent import set_consent
from sanbai.feedback.demonstrations import add_demonstration
from sanbai.feedback.labels import Answer, add_answers
from sanbai.feedback.registry import find_round, list_models, rollback, served
from sanbai.feedback.store import Store
from sanbai.feedback.tasks import assigned_tasks, lease_task
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.errors import DataError, UsageError
from sanbai.foundation.files import JsonlWriter, write_json_atomic
from sanbai.foundation.progress import SilentProgress
from sanbai.foundation.stage import Job, Stage, run_stage
from sanbai.foundation.stop import StopSignal
from sanbai.foundation.workspace import Workspace
from sanbai.generation.sampling import Sampling
from sanbai.model.adapters.recipe import AdapterRecipe
from sanbai.rounds.material import WorldMaterial
from sanbai.rounds.panel import Panel
from sanbai.rounds.pipeline import Pipeline
from sanbai.rounds.recipe import Recipe
from sanbai.rounds.snapshot import read_snapshot_rankings
from sanbai.rounds.stages.judges import TaughtJudges
from sanbai.rounds.tasks import LabelRecipe, Task
from sanbai.rounds.turn import Ancestry, Asked, Outcome, find_ancestry, make_ancestry, register_ancestry, turn

PANEL = Panel(("trainer",), ("watcher",), ("measurer-1", "measurer-2"))
RECIPE = Recipe(
    label=LabelRecipe(
        num_prompts=4,
        num_heldout_prompts=2,
        min_answers=2,
        num_labelers=4,
        num_judge_labelers=1,
        num_heldout_labelers=2,
        rankings_per_heldout_prompt=2,
        num_open_prompts=3,
    )
)
USER = {"role": "user", "content": "Who lives here?"}
LEVEL = {"mean": 0.0, "low": -0.1, "high": 0.1, "n": 10}


class Killed(Exception):  # noqa: N818 - what a kill would be
    """Stands for the end of the process."""


class SmallPipeline(Pipeline):
    """Makes artifacts without training; `version` stands for the program's, `better` says what the report will say."""

    version = "1"
    better = True
    killed_at = ""
    made: list[str]
    taught: dict[str, list[str]]

    def make(self, kind: str, name: str, *parents: Artifact, write: Callable[[Stage], None] | None = None) -> Artifact:
        if name == self.killed_at:
            raise Killed(name)

        def build(stage: Stage) -> Mapping[str, Any]:
            self.made.append(name)
            (stage.folder / "content.txt").write_text(name)
            if write is not None:
                write(stage)
            return {}

        return run_stage(
            self.job,
            kind=kind,
            name=name,
            recipe={},
            parents={f"parent{place}": parent for place, parent in enumerate(parents)},
            seed=1,
            floor="foundation",
            num_steps=1,
            build=build,
            inputs={"version": self.version},
        )

    def sample(self, name: str, policy: Artifact, heldout: Sequence[bool]) -> Artifact:
        def write(stage: Stage) -> None:
            with JsonlWriter(stage.folder / "tasks.jsonl.gz") as writer:
                for number, out in enumerate(heldout):
                    prompt = Prompt(f"p{number}", ({"role": "user", "content": f"{name} {number}"},), "chat")
                    task = Task.of(prompt, ["good", "bad"], heldout=out)
                    writer.write({name: getattr(task, name) for name in Task.__dataclass_fields__})

        return self.make("tasks", name, policy, write=write)

    def tasks(self, policy: Artifact, *, round: int) -> Artifact:  # noqa: A002
        return self.sample(f"tasks-{round}", policy, [False] * 4 + [True] * 2)

    def open_tasks(
        self,
        policy: Artifact,
        reward: Artifact,
        rankings: Sequence[Ranking],
        *,
        round: int,  # noqa: A002
    ) -> Artifact:
        assert reward
        assert rankings
        return self.sample(f"open-{round}", policy, [False] * 3)

    def reward(
        self, name: str, supervised: Artifact, snapshot: Artifact, demonstrations: Artifact, rankings: Sequence[Ranking]
    ) -> Artifact:
        assert rankings
        self.taught[name] = [ranking.labeler for ranking in rankings]
        return self.make("model", name, supervised, snapshot, demonstrations)

    def rank(self, reward: Artifact, tasks: Sequence[Task]) -> list[tuple[tuple[int, ...], ...]]:
        assert reward.kind == "model"
        return [((1,), (0,)) for _ in tasks]

    def policy(self, start: Artifact, reward: Artifact, judge: Artifact, shards: Artifact, *, round: int) -> Artifact:  # noqa: A002
        return self.make("model", f"ppo-{round}", start, reward, judge, shards)

    def report(
        self,
        models: Mapping[str, Artifact],
        shards: Artifact,
        taught: TaughtJudges | None = None,
        *,
        round: int,  # noqa: A002
    ) -> Artifact:
        before, after = list(models)[-2:]
        low = 0.55 if self.better else 0.4
        contest = {
            "win_rate": {"mean": 0.6, "low": low, "high": 0.65, "n": 10},
            "differences": dict.fromkeys(("helpful", "honest", "harmless"), LEVEL),
            "by_kind": {"chat": {"differences": {"gold_utility": LEVEL}}},
        }
        evaluation = {
            "models": list(models),
            "comparison": {f"{after}_vs_{before}": contest},
            "evaluation": {name: {"bits_per_byte": {"mean": 1.0}} for name in models},
            "worse": [],
        }
        return self.make(
            "report",
            f"report-{round}",
            *models.values(),
            *((taught.reward, taught.judge) if taught else ()),
            write=lambda stage: write_json_atomic(stage.folder / "evaluation.json", evaluation),
        )


@pytest.fixture
def pipeline(tmp_path: Path) -> SmallPipeline:
    workspace = Workspace(tmp_path)
    workspace.create()
    made = SmallPipeline(Job(workspace, SilentProgress(), StopSignal()), RECIPE, WorldMaterial(RECIPE))
    object.__setattr__(made, "made", [])
    object.__setattr__(made, "taught", {})
    return made


@pytest.fixture
def store(pipeline: SmallPipeline) -> Store:
    opened = Store(pipeline.job.workspace.database_url)
    opened.create()
    return opened


@pytest.fixture
def ancestry(pipeline: SmallPipeline, store: Store) -> Ancestry:
    tokenizer, shards, shown = (pipeline.make(kind, kind) for kind in ("tokenizer", "shards", "demonstrations"))
    base = pipeline.make("model", "base", tokenizer)
    found = Ancestry(tokenizer, shards, shown, base, pipeline.make("model", "supervised", base))
    register_ancestry(store, found)
    pipeline.made.clear()
    return found


def change(pipeline: SmallPipeline, **fields: object) -> None:
    for name, value in fields.items():
        object.__setattr__(pipeline, name, value)


def accounts_of(store: Store, names: Sequence[str]) -> dict[str, Account]:
    accounts = {name: add_account(store, name, "labeler", source="simulated") for name in names}
    for account in accounts.values():
        set_consent(store, account, granted=True)
    return accounts


def answer_all(store: Store) -> Callable[[int, Mapping[str, Account]], None]:
    def collect(number: int, accounts: Mapping[str, Account]) -> None:
        del number
        for account in accounts.values():
            waiting = assigned_tasks(store, account, limit=100)
            if waiting:
                add_answers(store, account, [Answer(task_id, ((0,), (1,))) for task_id in waiting])

    return collect


@pytest.fixture
def asked(store: Store) -> Asked:
    return Asked(PANEL, accounts_of(store, PANEL.everyone), answer_all(store))


def run(pipeline: Pipeline, store: Store, ancestry: Ancestry, asked: Asked | None, number: int = 1) -> Outcome:
    return turn(pipeline, store, ancestry, round=number, panel=PANEL, asked=asked)


def test_a_round_passes_through_its_states_once_and_promotes(
    pipeline: SmallPipeline, store: Store, ancestry: Ancestry, asked: Asked
) -> None:
    outcome = run(pipeline, store, ancestry, asked)
    assert outcome.verdict.promote
    states = [event.state for event in find_round(store, 1).events]
    # It opens by serving the supervised model.
    assert states == ["open", "serving", "snapshot", "training", "evaluating", "gated", "serving"]
    deployment = served(store)
    assert deployment is not None
    assert deployment.model == "policy-1"
    assert pipeline.made == ["tasks-1", "reward", "judge", "ppo-1", "report-1", "open-2"]


def test_a_finished_round_run_again_changes_nothing(
    pipeline: SmallPipeline, store: Store, ancestry: Ancestry, asked: Asked
) -> None:
    first = run(pipeline, store, ancestry, asked)
    rollback(store, actor="ada")
    events, models = find_round(store, 1).events, list_models(store)
    pipeline.made.clear()
    assert run(pipeline, store, ancestry, asked) == first
    assert pipeline.made == []
    assert find_round(store, 1).events == events
    assert list_models(store) == models
    deployment = served(store)
    assert deployment is not None
    assert deployment.model == "supervised"


@pytest.mark.parametrize("moment", ["tasks-1", "reward", "judge", "ppo-1", "report-1", "open-2"])
def test_a_round_killed_anywhere_ends_as_an_undisturbed_one(
    pipeline: SmallPipeline, store: Store, ancestry: Ancestry, asked: Asked, moment: str
) -> None:
    change(pipeline, killed_at=moment)
    with pytest.raises(Killed):
        run(pipeline, store, ancestry, asked)
    change(pipeline, killed_at="")
    run(pipeline, store, ancestry, asked)
    assert pipeline.made == ["tasks-1", "reward", "judge", "ppo-1", "report-1", "open-2"]
    states = [event.state for event in find_round(store, 1).events]
    assert states == ["open", "serving", "snapshot", "training", "evaluating", "gated", "serving"]


def test_a_round_killed_while_labelers_answer_asks_only_for_the_rest(
    pipeline: SmallPipeline, store: Store, ancestry: Ancestry, asked: Asked
) -> None:
    def answer_some(number: int, accounts: Mapping[str, Account]) -> None:
        asked.collect(number, {name: accounts[name] for name in ("trainer", "measurer-1")})
        raise Killed

    with pytest.raises(Killed):
        run(pipeline, store, ancestry, replace(asked, collect=answer_some))
    outcome = run(pipeline, store, ancestry, asked)
    assert outcome.snapshot.metrics["rankings"] == 4 * 2 + 2 * 2


def test_what_people_say_after_the_snapshot_waits_for_the_next_round(
    pipeline: SmallPipeline, store: Store, ancestry: Ancestry, asked: Asked
) -> None:
    change(pipeline, killed_at="report-1")
    with pytest.raises(Killed):
        run(pipeline, store, ancestry, asked)
    add_demonstration(store, asked.accounts["trainer"], [USER, {"role": "assistant", "content": "late"}], source="x")
    change(pipeline, killed_at="")
    outcome = run(pipeline, store, ancestry, asked)
    assert find_round(store, 1).artifacts["snapshot"] == (outcome.snapshot.name,)
    assert outcome.snapshot.metrics["demonstrations"] == 0
    assert run(pipeline, store, ancestry, asked, 2).snapshot.metrics["demonstrations"] == 1


def test_a_new_version_of_the_program_continues_a_round_with_what_it_has(
    pipeline: SmallPipeline, store: Store, ancestry: Ancestry, asked: Asked
) -> None:
    change(pipeline, killed_at="ppo-1")
    with pytest.raises(Killed):
        run(pipeline, store, ancestry, asked)
    pipeline.made.clear()
    change(pipeline, killed_at="", version="2")
    run(pipeline, store, ancestry, asked)
    assert pipeline.made == ["ppo-1", "report-1", "open-2"]


def test_people_rank_answers_of_the_served_model_before_the_next_round(
    pipeline: SmallPipeline, store: Store, ancestry: Ancestry, asked: Asked
) -> None:
    run(pipeline, store, ancestry, asked)
    ada = add_account(store, "ada", "labeler")
    set_consent(store, ada, granted=True)
    for _ in range(3):
        lease = lease_task(store, ada)
        assert lease is not None
        assert lease.task.origins == ("policy-1", "policy-1")
        add_answers(store, ada, [Answer(lease.task_id, ((1,), (0,)))])
    assert lease_task(store, ada) is None
    outcome = run(pipeline, store, ancestry, asked, 2)
    assert outcome.snapshot.metrics["rankings_person"] == 3
    assert outcome.snapshot.metrics["rankings_simulated"] == 24


def test_the_last_reward_model_ranks_its_share_under_its_own_name(
    pipeline: SmallPipeline, store: Store, ancestry: Ancestry, asked: Asked
) -> None:
    label = RECIPE.label.model_copy(update={"model_share": 0.9})
    change(pipeline, recipe=RECIPE.model_copy(update={"label": label}))
    first = run(pipeline, store, ancestry, asked)
    assert "rankings_model" not in first.snapshot.metrics  # there is no reward model yet
    second = run(pipeline, store, ancestry, asked, 2)
    teacher = f"model:{next(one.artifact for one in list_models(store) if one.name == 'reward-1')}"
    num = second.snapshot.metrics["rankings_model"]
    assert 1 <= num <= 4
    # The trainer had four tasks in round one and is spared the model's in round two; nobody else is.
    assert Counter(pipeline.taught["reward"]) == {"trainer": 8 - num, teacher: num}
    assert Counter(pipeline.taught["judge"]) == {"watcher": 8}
    assert second.snapshot.metrics["rankings_simulated"] == 24 - num
    (row,) = {tuple(one.buckets) for one in read_snapshot_rankings(second.snapshot) if one.labeler == teacher}
    assert row == ((1,), (0,))

    change(pipeline, recipe=RECIPE)  # without a share, what a model ranked before teaches nobody
    run(pipeline, store, ancestry, asked, 3)
    assert set(pipeline.taught["reward"]) == {"trainer"}


def test_a_round_killed_after_the_model_ranked_asks_it_nothing_twice(
    pipeline: SmallPipeline, store: Store, ancestry: Ancestry, asked: Asked
) -> None:
    label = RECIPE.label.model_copy(update={"model_share": 0.9})
    change(pipeline, recipe=RECIPE.model_copy(update={"label": label}))
    run(pipeline, store, ancestry, asked)

    def die(number: int, accounts: Mapping[str, Account]) -> None:
        raise Killed

    with pytest.raises(Killed):
        run(pipeline, store, ancestry, replace(asked, collect=die), 2)
    metrics = run(pipeline, store, ancestry, asked, 2).snapshot.metrics
    assert metrics["rankings"] == 24
    assert metrics["rankings_model"] + metrics["rankings_simulated"] == 24


def test_people_alone_can_turn_the_wheel_once_there_are_judges(
    pipeline: SmallPipeline, store: Store, ancestry: Ancestry, asked: Asked
) -> None:
    run(pipeline, store, ancestry, asked)
    outcome = run(pipeline, store, ancestry, None, 2)
    assert outcome.snapshot.metrics["rankings"] == 12
    assert "tasks" not in find_round(store, 2).artifacts


def test_without_any_ranking_the_round_says_what_to_do_and_can_be_run_again(
    pipeline: SmallPipeline, store: Store, ancestry: Ancestry, asked: Asked
) -> None:
    with pytest.raises(DataError, match=r"the second judge nor for measuring.*--simulated-labelers 40"):
        run(pipeline, store, ancestry, None)
    assert run(pipeline, store, ancestry, asked).verdict.promote


def test_a_refused_round_leaves_the_served_model_and_the_next_starts_from_it(
    pipeline: SmallPipeline, store: Store, ancestry: Ancestry, asked: Asked
) -> None:
    change(pipeline, better=False)
    outcome = run(pipeline, store, ancestry, asked)
    assert "win rate" in outcome.verdict.summary
    assert find_round(store, 1).state == "refused"
    deployment = served(store)
    assert deployment is not None
    assert deployment.model == "supervised"
    run(pipeline, store, ancestry, asked, 2)
    policy = next(model for model in list_models(store) if model.name == "policy-2")
    assert policy.parent == "supervised"


def test_the_first_models_are_found_again_and_another_supervised_model_is_refused(
    pipeline: SmallPipeline, store: Store, ancestry: Ancestry
) -> None:
    other = replace(ancestry, supervised=ancestry.base)
    with pytest.raises(UsageError, match="choose another --workspace"):
        register_ancestry(store, other)
    empty = Store(f"sqlite:///{pipeline.job.workspace.root / 'other.db'}")
    empty.create()
    assert find_ancestry(pipeline.job.workspace, empty) is None


@pytest.mark.parametrize("field", ["ppo.max_new_tokens", "evaluate.sampling.max_new_tokens"])
def test_answers_that_leave_no_room_for_a_prompt_are_refused_before_anything_is_made(
    tmp_path: Path, field: str
) -> None:
    length = RECIPE.model.max_positions - 4
    written = {"ppo.max_new_tokens": 8, "evaluate.sampling.max_new_tokens": 8, field: length}
    ppo = RECIPE.ppo.model_copy(update={"max_new_tokens": written["ppo.max_new_tokens"]})
    sampling = Sampling(max_new_tokens=written["evaluate.sampling.max_new_tokens"])
    evaluate = RECIPE.evaluate.model_copy(update={"sampling": sampling})
    recipe = RECIPE.model_copy(update={"ppo": ppo, "evaluate": evaluate})
    pipeline = Pipeline(Job(Workspace(tmp_path), SilentProgress(), StopSignal()), recipe, WorldMaterial(recipe))
    with pytest.raises(UsageError, match=rf"{field} {length} leaves 4 of the model's .* lower it, or take a model"):
        make_ancestry(pipeline)
    assert list(tmp_path.rglob("*")) == []


def test_a_prompt_that_no_model_can_hold_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"adapter": AdapterRecipe(method="prefix")})
    pipeline = Pipeline(Job(Workspace(tmp_path), SilentProgress(), StopSignal()), recipe, WorldMaterial(recipe))
    with pytest.raises(UsageError, match=r"adapter\.method prefix cannot be merged .* choose lora, or run"):
        make_ancestry(pipeline)
    assert list(tmp_path.rglob("*")) == []
