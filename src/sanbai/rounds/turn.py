"""One turn of the wheel: ask, freeze, train, evaluate, judge, promote or refuse.

Every state is a row in the registry, written once; a killed round goes on where it was when the same command is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sanbai.evaluation.statistics import Estimate
from sanbai.feedback.accounts import Account
from sanbai.feedback.registry import (
    RegisteredModel,
    Round,
    RoundEvent,
    RoundState,
    add_model,
    add_round_artifact,
    add_round_event,
    find_model,
    find_round,
    list_models,
    list_rounds,
    serve,
    served,
)
from sanbai.feedback.store import Store
from sanbai.feedback.tasks import LabelTask, add_tasks
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.errors import UsageError
from sanbai.foundation.files import read_json
from sanbai.rounds.gate import Verdict, decide
from sanbai.rounds.panel import Panel, split_rankings
from sanbai.rounds.pipeline import Pipeline
from sanbai.rounds.snapshot import freeze_snapshot, read_snapshot_rankings
from sanbai.rounds.tasks import read_tasks

GATE = "gate"

#: Round, accounts of the simulated labelers -> their answers are in the store when it returns.
Collect = Callable[[int, Mapping[str, Account]], None]


@dataclass(frozen=True)
class Ancestry:
    """What every round shares: made once, in round one.

    Attributes:
        tokenizer: the vocabulary.
        shards: the encoded corpus.
        demonstrations: conversations to imitate.
        base: the pretrained model.
        supervised: the model that imitates; round one practises from it.
    """

    tokenizer: Artifact
    shards: Artifact
    demonstrations: Artifact
    base: Artifact
    supervised: Artifact


@dataclass(frozen=True)
class Outcome:
    """What a round came to."""

    round: int
    policy: Artifact
    report: Artifact
    snapshot: Artifact
    verdict: Verdict


def make_ancestry(pipeline: Pipeline) -> Ancestry:
    """Run the stages from documents to the supervised model."""
    corpus = pipeline.corpus()
    tokenizer = pipeline.tokenizer(corpus)
    shards = pipeline.shards(corpus, tokenizer)
    base = pipeline.base(tokenizer, shards)
    demonstrations = pipeline.demonstrations()
    supervised = pipeline.supervised(base, shards, demonstrations)
    return Ancestry(tokenizer, shards, demonstrations, base, supervised)


def register_ancestry(store: Store, ancestry: Ancestry) -> None:
    """Name the first models, and let the supervised one serve until a policy passes the gate.

    Raises:
        UsageError: the store's models were made by another recipe.
    """
    known = {model.name: model.artifact for model in list_models(store)}
    if known.get("supervised", ancestry.supervised.name) != ancestry.supervised.name:
        raise UsageError(
            f"{store.place}: its rounds began with {known['supervised']}, this recipe and seed make "
            f"{ancestry.supervised.name}; choose another --workspace, or give the recipe and seed of before"
        )
    add_model(store, RegisteredModel("base", "base", ancestry.base.name, round=1))
    add_model(store, RegisteredModel("supervised", "supervised", ancestry.supervised.name, parent="base", round=1))
    if served(store) is None:
        serve(store, "supervised", round=1, actor=GATE, reason="the first model")


def turn(
    pipeline: Pipeline,
    store: Store,
    ancestry: Ancestry,
    *,
    round: int,  # noqa: A002 - the field's own word
    panel: Panel,
    accounts: Mapping[str, Account],
    collect: Collect,
) -> Outcome:
    """Run one round and let the gate decide.

    Args:
        pipeline: the recipe at work.
        store: feedback, registry.
        ancestry: the models of round one.
        round: its number; an unfinished one is continued.
        panel: groups of the simulated labelers.
        accounts: simulated labelers' accounts by name; empty where only people answer.
        collect: waits until the simulated labelers have answered.

    Raises:
        DataError: nobody has ranked anything.
        Interrupted: asked to stop; everything so far is saved.
    """
    history = _History(store, round)
    history.enter("open")
    start = history.start_model()
    serving = pipeline.job.workspace.load(start.artifact)
    if accounts:
        ask(pipeline, store, serving, round=round, model=start.name, panel=panel, accounts=accounts)
        if not history.has("snapshot"):
            collect(round, accounts)

    history.enter("snapshot")
    snapshot = freeze_snapshot(pipeline.job, store, seed=pipeline.recipe.seed, round=round)
    add_round_artifact(store, round, "snapshot", snapshot.name)

    history.enter("training")
    rankings = split_rankings(read_snapshot_rankings(snapshot), panel)
    common = (ancestry.supervised, snapshot, ancestry.demonstrations)
    reward = pipeline.reward("reward", *common, rankings.training)
    judge = pipeline.reward("judge", *common, rankings.judge)
    policy = pipeline.policy(serving, reward, judge, ancestry.shards, round=round)
    frozen = (snapshot.name,)
    add_model(store, RegisteredModel(f"reward-{round}", "reward", reward.name, "supervised", round, frozen))
    add_model(store, RegisteredModel(f"judge-{round}", "reward", judge.name, "supervised", round, frozen))
    add_model(store, RegisteredModel(f"policy-{round}", "policy", policy.name, start.name, round, frozen))

    history.enter("evaluating")
    contestants = {"base": ancestry.base} if round == 1 else {}
    contestants |= {"supervised" if round == 1 else "served": serving, "ppo": policy}
    report = pipeline.report(contestants, ancestry.shards, reward, rankings.heldout, round=round)
    add_round_artifact(store, round, "report", report.name)

    first_report = report if round == 1 else _first_report(pipeline, store)
    verdict = judge_report(pipeline, report, first_report)
    history.enter("gated", reason=verdict.summary, verdict=verdict.to_json())
    if not is_decided(find_round(store, round)):
        if verdict.promote:
            serve(store, f"policy-{round}", round=round, actor=GATE, reason=verdict.summary)
        else:
            add_round_event(store, round, RoundEvent("refused", GATE, verdict.summary))
    return Outcome(round, policy, report, snapshot, verdict)


def ask(
    pipeline: Pipeline,
    store: Store,
    policy: Artifact,
    *,
    round: int,  # noqa: A002
    model: str,
    panel: Panel,
    accounts: Mapping[str, Account],
) -> None:
    """Sample answers from the serving policy and give them to the simulated labelers; doing it twice adds nothing."""
    sampled = pipeline.tasks(policy, round=round)
    tasks, assignees = [], {}
    for task in read_tasks(sampled.file("tasks.jsonl.gz")):
        names = panel.assign(task, pipeline.recipe.label, seed=pipeline.recipe.seed)
        row = LabelTask(
            messages=task.messages,
            responses=task.responses,
            prompt_kind=task.kind,
            origins=(model,) * len(task.responses),
            round=round,
            overlap=len(names),
        )
        tasks.append(row)
        assignees[row.id] = [accounts[name] for name in names]
    add_tasks(store, tasks, assignees=assignees)


def judge_report(pipeline: Pipeline, report: Artifact, first_report: Artifact) -> Verdict:
    """Put a report's last comparison before the gate."""
    evaluation = read_json(report.file("evaluation.json"))
    before, after = evaluation["models"][-2:]
    contest = evaluation["comparison"][f"{after}_vs_{before}"]
    reference = read_json(first_report.file("evaluation.json"))["evaluation"]["supervised"]["bits_per_byte"]["mean"]
    return decide(
        pipeline.recipe.gate,
        win_rate=Estimate.from_json(contest["win_rate"]),
        axes={axis: Estimate.from_json(contest["differences"][axis]) for axis in ("helpful", "honest", "harmless")},
        kinds={
            kind: Estimate.from_json(found["differences"]["gold_utility"]) for kind, found in contest["by_kind"].items()
        },
        bits_per_byte=evaluation["evaluation"][after]["bits_per_byte"]["mean"],
        reference_bits_per_byte=reference,
        setbacks=evaluation["worse"],
    )


def _first_report(pipeline: Pipeline, store: Store) -> Artifact:
    first = next(known for known in list_rounds(store) if known.n == 1)
    return pipeline.job.workspace.load(first.artifacts["report"][-1])


def is_decided(known: Round) -> bool:
    """Return whether the gate's verdict on a round was carried out: it was promoted or refused after it was judged."""
    states = [event.state for event in known.events]
    return "gated" in states and len(states) > states.index("gated") + 1


class _History:
    """A round's states in the registry, each entered once."""

    def __init__(self, store: Store, number: int) -> None:
        self._store, self._number = store, number

    def has(self, state: RoundState) -> bool:
        return any(event.state == state for event in self._events())

    def enter(self, state: RoundState, *, reason: str = "", verdict: Mapping[str, Any] | None = None) -> None:
        """Write the state unless it was entered before."""
        if not self.has(state):
            add_round_event(self._store, self._number, RoundEvent(state, GATE, reason, verdict or {}))

    def start_model(self) -> RegisteredModel:
        """Return the model that served when the round was opened: a continued round starts from the same one."""
        noted = find_round(self._store, self._number).artifacts.get("start")
        if noted is None:
            deployment = served(self._store)
            assert deployment is not None, "the supervised model serves before the first round"
            model = find_model(self._store, deployment.model)
            add_round_artifact(self._store, self._number, "start", model.artifact)
            return model
        return next(model for model in list_models(self._store) if model.artifact == noted[0])

    def _events(self) -> tuple[RoundEvent, ...]:
        return next((known.events for known in list_rounds(self._store) if known.n == self._number), ())
