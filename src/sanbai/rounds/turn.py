"""One turn of the wheel: ask, freeze, train, evaluate, judge, promote or refuse.

Every state is a row in the registry, written once, and every artifact is noted there when it is made: a killed round
goes on where it was when the same command is given again, and keeps what it has, whatever people said meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sanbai.data.rankings import Ranking
from sanbai.evaluation.statistics import Estimate
from sanbai.feedback.accounts import Account, add_account, list_accounts
from sanbai.feedback.consent import set_consent
from sanbai.feedback.labels import Answer, add_answers
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
from sanbai.foundation.errors import UnknownNameError, UsageError
from sanbai.foundation.files import read_json
from sanbai.foundation.workspace import Workspace
from sanbai.rounds.gate import Verdict, decide
from sanbai.rounds.model_labeler import labeler_name, ranks_in_their_place
from sanbai.rounds.panel import Panel, RankingsByUse, split_rankings
from sanbai.rounds.pipeline import Pipeline
from sanbai.rounds.snapshot import freeze_snapshot, read_snapshot_rankings
from sanbai.rounds.stages.ancestry import check_answers, check_start
from sanbai.rounds.stages.judges import TaughtJudges
from sanbai.rounds.tasks import Task, read_tasks

GATE = "gate"


@dataclass(frozen=True)
class Asked:
    """The simulated labelers who are asked in a round.

    Attributes:
        panel: who they are, by group.
        accounts: theirs, by name.
        collect: is given the round's number and the accounts; their answers are in the store when it returns.
    """

    panel: Panel
    accounts: Mapping[str, Account]
    collect: Callable[[int, Mapping[str, Account]], None]


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
    """Run the stages from documents to the supervised model.

    Raises:
        UsageError: the recipe's adapter leaves no whole model for the stages that follow, its rows are too long for the
            model to start from, or its answers leave no room for a prompt.
        ModelError: the model to start from is no language model.
    """
    if (method := pipeline.recipe.adapter.method) not in {"none", "lora"}:
        raise UsageError(
            f"adapter.method {method} cannot be merged into a model, which the later stages need; "
            "choose lora, or run `sanbai train supervise` alone"
        )
    if pipeline.start is not None:
        check_start(pipeline.start, pipeline.recipe, practises=True)
    answers = {
        "ppo.max_new_tokens": pipeline.recipe.ppo.max_new_tokens,
        "evaluate.sampling.max_new_tokens": pipeline.recipe.evaluate.sampling.max_new_tokens,
    }
    check_answers(pipeline.start, pipeline.recipe, answers)
    corpus = pipeline.corpus()
    tokenizer = pipeline.tokenizer(corpus)
    shards = pipeline.shards(corpus, tokenizer)
    base = pipeline.base(tokenizer, shards)
    demonstrations = pipeline.demonstrations()
    supervised = pipeline.supervised(base, shards, demonstrations)
    return Ancestry(tokenizer, shards, demonstrations, base, supervised)


def find_ancestry(workspace: Workspace, store: Store) -> Ancestry | None:
    """Return what the first round has registered, whichever version of the program made it; None before that.

    Raises:
        ArtifactError: a file of it is damaged.
    """
    known = {model.name: model.artifact for model in list_models(store)}
    if "supervised" not in known:
        return None
    try:
        supervised = workspace.load(known["supervised"])
        parents = {role: workspace.load(name) for role, name in supervised.manifest["parents"].items()}
        base = parents["base"]  # its tokenizer's parent, or one from elsewhere that brought its own
        tokenizer = workspace.load(base.manifest["parents"].get("tokenizer", base.name))
    except UnknownNameError:
        return None  # deleted, perhaps on our own advice: the same recipe makes it anew
    for artifact in (supervised, tokenizer, *parents.values()):
        artifact.verify()
    return Ancestry(tokenizer, parents["shards"], parents["demonstrations"], parents["base"], supervised)


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
    asked: Asked | None = None,
) -> Outcome:
    """Run one round and let the gate decide.

    Args:
        pipeline: the recipe at work.
        store: feedback, registry.
        ancestry: the models of round one.
        round: its number; an unfinished one is continued.
        panel: all simulated labelers by group; whoever is not among them is a person.
        asked: those who rank new answers in this round; None where only what is in the store counts.

    Raises:
        DataError: a use of rankings has none.
        Interrupted: asked to stop; everything so far is saved.
    """
    record = _Record(store, pipeline.job.workspace, round)
    record.enter("open")
    start = record.start_model()
    serving = pipeline.job.workspace.load(start.artifact)
    serving.verify()

    snapshot = record.find("snapshot") or _freeze(pipeline, store, record, start, panel, asked)

    record.enter("training")
    rankings = _split(pipeline, snapshot, panel)
    reward, judge, policy = _train(pipeline, store, ancestry, record, start, snapshot, rankings)

    record.enter("evaluating")
    contestants = {"base": ancestry.base} if round == 1 else {}
    contestants |= {"supervised" if round == 1 else "served": serving, "ppo": policy}
    report = record.once(
        "report",
        lambda: pipeline.report(contestants, ancestry.shards, TaughtJudges(reward, judge, rankings), round=round),
    )

    first_report = report if round == 1 else _first_report(pipeline, store)
    verdict = judge_report(pipeline, report, first_report)
    record.enter("gated", reason=verdict.summary, verdict=verdict.to_json())
    if not is_decided(find_round(store, round)):
        if verdict.promote:
            serve(store, f"policy-{round}", round=round, actor=GATE, reason=verdict.summary)
        else:
            record.enter("refused", reason=verdict.summary)
    _offer(pipeline, store, record, reward, rankings.training)
    return Outcome(round, policy, report, snapshot, verdict)


def _freeze(
    pipeline: Pipeline, store: Store, record: _Record, start: RegisteredModel, panel: Panel, asked: Asked | None
) -> Artifact:
    """Have the simulated labelers answer, then freeze what everybody said.

    Raises:
        DataError: a use of rankings has none; the round may be run again once there are some.
    """
    if asked is not None:
        _ask(pipeline, store, record, start, asked)
        asked.collect(record.number, asked.accounts)
    record.enter("snapshot")
    snapshot = freeze_snapshot(pipeline.job, store, seed=pipeline.recipe.seed, round=record.number)
    _split(pipeline, snapshot, panel).check()
    return record.once("snapshot", lambda: snapshot)


def _split(pipeline: Pipeline, snapshot: Artifact, panel: Panel) -> RankingsByUse:
    recipe = pipeline.recipe
    share = recipe.label.model_share
    return split_rankings(read_snapshot_rankings(snapshot), panel, model_share=share, seed=recipe.seed)


def _train(
    pipeline: Pipeline,
    store: Store,
    ancestry: Ancestry,
    record: _Record,
    start: RegisteredModel,
    snapshot: Artifact,
    rankings: RankingsByUse,
) -> tuple[Artifact, Artifact, Artifact]:
    """Make and name the round's reward model, second judge and policy."""
    number, frozen = record.number, (snapshot.name,)
    common = (ancestry.supervised, snapshot, ancestry.demonstrations)
    reward = record.once("reward", lambda: pipeline.reward("reward", *common, rankings.training))
    judge = record.once("judge", lambda: pipeline.reward("judge", *common, rankings.judge))
    serving = pipeline.job.workspace.load(start.artifact)
    policy = record.once("policy", lambda: pipeline.policy(serving, reward, judge, ancestry.shards, round=number))
    add_model(store, RegisteredModel(f"reward-{number}", "reward", reward.name, "supervised", number, frozen))
    add_model(store, RegisteredModel(f"judge-{number}", "reward", judge.name, "supervised", number, frozen))
    add_model(store, RegisteredModel(f"policy-{number}", "policy", policy.name, start.name, number, frozen))
    return reward, judge, policy


def _ask(pipeline: Pipeline, store: Store, record: _Record, start: RegisteredModel, asked: Asked) -> None:
    """Sample answers from the serving policy and give them to the simulated labelers; doing it twice adds nothing.

    Where the recipe says so, the last round's reward model ranks some of them at once.
    """
    policy = pipeline.job.workspace.load(start.artifact)
    sampled = record.once("tasks", lambda: pipeline.tasks(policy, round=record.number))
    recipe, seed = pipeline.recipe.label, pipeline.recipe.seed
    teacher = _last_reward(pipeline, store, record.number) if recipe.model_share else None
    tasks, assignees = [], {}
    ranked: dict[str, Task] = {}
    for task in read_tasks(sampled.file("tasks.jsonl.gz")):
        accounts = [asked.accounts[name] for name in asked.panel.assign(task, recipe, seed=seed)]
        replaced = teacher is not None and ranks_in_their_place(task, recipe.model_share, seed=seed)
        if teacher is not None and replaced:  # the second judge is taught by labelers alone
            watching = [account for account in accounts if account.name in asked.panel.judge]
            accounts = [_model_account(store, teacher), *watching]
        row = _label_task(task, start.name, round=record.number, overlap=len(accounts))
        if replaced:
            ranked[row.id] = task
        tasks.append(row)
        assignees[row.id] = accounts
    add_tasks(store, tasks, assignees=assignees)
    if teacher is not None and ranked:
        buckets = pipeline.rank(teacher, list(ranked.values()))
        answers = [Answer(task_id, found) for task_id, found in zip(ranked, buckets, strict=True)]
        add_answers(store, _model_account(store, teacher), answers)


def _last_reward(pipeline: Pipeline, store: Store, number: int) -> Artifact | None:
    """Return the reward model of the round before; None in the first round."""
    known = {model.name: model.artifact for model in list_models(store)}
    name = known.get(f"reward-{number - 1}")
    return None if name is None else pipeline.job.workspace.load(name)


def _model_account(store: Store, reward: Artifact) -> Account:
    """Return the account of a reward model that ranks, made where it is missing; its rows may train."""
    name = labeler_name(reward)
    known = {account.name: account for account in list_accounts(store)}
    if name in known:
        return known[name]
    account = add_account(store, name, "labeler", source="model")
    set_consent(store, account, granted=True)
    return account


def _offer(pipeline: Pipeline, store: Store, record: _Record, reward: Artifact, rankings: Sequence[Ranking]) -> None:
    """Lay answers of the model that serves now before people, to be ranked at /label before the next round."""
    if not pipeline.recipe.label.num_open_prompts:
        return
    deployment = served(store)
    assert deployment is not None, "the supervised model serves before the first round"
    policy = pipeline.job.workspace.load(find_model(store, deployment.model).artifact)
    following = record.number + 1
    sampled = record.once("open_tasks", lambda: pipeline.open_tasks(policy, reward, rankings, round=following))
    tasks = read_tasks(sampled.file("tasks.jsonl.gz"))
    add_tasks(store, [_label_task(task, deployment.model, round=following, overlap=1) for task in tasks])


def _label_task(task: Task, model: str, *, round: int, overlap: int) -> LabelTask:  # noqa: A002
    return LabelTask(
        messages=task.messages,
        responses=task.responses,
        prompt_kind=task.kind,
        origins=(model,) * len(task.responses),
        round=round,
        overlap=overlap,
    )


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
    return pipeline.job.workspace.load(find_round(store, 1).artifacts["report"][-1])


def is_decided(known: Round) -> bool:
    """Return whether the gate's verdict on a round was carried out: it was promoted or refused after it was judged."""
    states = [event.state for event in known.events]
    return "gated" in states and len(states) > states.index("gated") + 1


class _Record:
    """A round in the registry: its states, each entered once, and its artifacts by role, each made once."""

    def __init__(self, store: Store, workspace: Workspace, number: int) -> None:
        self.number = number
        self._store, self._workspace = store, workspace

    def enter(self, state: RoundState, *, reason: str = "", verdict: Mapping[str, Any] | None = None) -> None:
        """Write the state unless it was entered before."""
        known = next((one for one in list_rounds(self._store) if one.n == self.number), None)
        if known is None or state not in {event.state for event in known.events}:
            add_round_event(self._store, self.number, RoundEvent(state, GATE, reason, verdict or {}))

    def find(self, role: str) -> Artifact | None:
        """Return the artifact that was noted for a role, its files checked; None where there is none any more."""
        for name in reversed(find_round(self._store, self.number).artifacts.get(role, ())):
            if (self._workspace.artifacts / name).exists():
                artifact = self._workspace.load(name)
                artifact.verify()
                return artifact
        return None

    def once(self, role: str, make: Callable[[], Artifact]) -> Artifact:
        """Return the artifact that was noted for a role, or make and note it."""
        if (found := self.find(role)) is not None:
            return found
        artifact = make()
        add_round_artifact(self._store, self.number, role, artifact.name)
        return artifact

    def start_model(self) -> RegisteredModel:
        """Return the model that served when the round was opened: a continued round starts from the same one."""
        noted = find_round(self._store, self.number).artifacts.get("start")
        if noted is None:
            deployment = served(self._store)
            assert deployment is not None, "the supervised model serves before the first round"
            model = find_model(self._store, deployment.model)
            add_round_artifact(self._store, self.number, "start", model.artifact)
            return model
        return next(model for model in list_models(self._store) if model.artifact == noted[0])
