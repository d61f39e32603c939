"""The stage that evaluates: the same prompts, documents and questions for every model, one report at the end.

Models come in the order of their making, usually base, supervised, ppo; each is compared with the one before it. The
artifact holds `evaluation.json` (every number), `samples.json`, `answers-<model>.jsonl.gz` (every judged answer, for
paired tests later), `context.json` (what else the page shows), `plots/*.svg` and `report.html`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanbai.evaluation.answers import (
    AXES,
    AnswerScores,
    Contestant,
    EvaluationPrompt,
    Judge,
    ScoredAnswer,
    answer_prompts,
    read_answers,
    score_answers,
    write_answers,
)
from sanbai.evaluation.compare import Comparison, compare, setbacks
from sanbai.evaluation.divergence import response_divergence
from sanbai.evaluation.few_shot import ChoiceTask, FewShotScores, score_choices
from sanbai.evaluation.figures import Figure, draw_figures
from sanbai.evaluation.language import HeldOutDocument, bits_per_byte_of, document_bits
from sanbai.evaluation.plots import Rows
from sanbai.evaluation.recipe import EvaluateRecipe
from sanbai.evaluation.report import report_html
from sanbai.evaluation.statistics import Estimate
from sanbai.evaluation.tax import Tax, alignment_tax
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.errors import DataError
from sanbai.foundation.files import read_json, write_atomic, write_json_atomic
from sanbai.foundation.seeds import derive_seed
from sanbai.foundation.stage import Stage
from sanbai.text.tokenizer import Tokenizer

STEPS_A_MODEL = 3
"""Answering, reading and choosing: progress steps of each model; one more draws the report."""
NUM_SAMPLES_SHOWN = 3


@dataclass(frozen=True)
class HeldOut:
    """What no model was trained on, and who judges.

    Attributes:
        prompts: the recipe's `num_prompts` of them are asked, from the front.
        judge: (prompt, answer) -> judgement.
        documents: empty ones aside, the recipe's `num_documents` of them are read, from the front.
        choice_tasks: multiple-choice questions; none leaves few-shot evaluation out.
    """

    prompts: Sequence[EvaluationPrompt]
    judge: Judge
    documents: Sequence[HeldOutDocument]
    choice_tasks: Sequence[ChoiceTask] = ()


@dataclass(frozen=True)
class Context:
    """What the report shows beside the evaluation's own figures.

    Attributes:
        reward_model: `reward_accuracy.reward_model_entry`, or nothing where no reward model was trained.
        mistakes: `mistakes.confident_mistakes` of the reward model.
        series: stage (pretrain, supervise, reward, ppo) -> its metrics, as `read_metrics` returns them.
        seconds: model -> how long its making took.
        facts: data, seed and machine, for the page's foot.
    """

    reward_model: Mapping[str, Any] = field(default_factory=dict)
    mistakes: Sequence[Mapping[str, Any]] = ()
    series: Mapping[str, Rows] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """One model's raw results; everything else is computed from them."""

    answers: Sequence[ScoredAnswer]
    scores: AnswerScores
    bits: NDArray[np.float64]
    bits_per_byte: Estimate
    few_shot: FewShotScores | None


def evaluate_models(
    stage: Stage,
    recipe: EvaluateRecipe,
    contestants: Sequence[Contestant],
    *,
    tokenizer: Tokenizer,
    held_out: HeldOut,
    context: Context | None = None,
) -> dict[str, Any]:
    """Evaluate models side by side and write the report into the stage's folder.

    A killed evaluation keeps the answers of the models that had finished answering.

    Args:
        stage: its progress has `STEPS_A_MODEL` steps a model and one for the report.
        recipe: how much and how sure.
        contestants: in the order of their making, at least one.
        tokenizer: of all of them.
        held_out: prompts, judge, documents and questions.
        context: what else the report shows.

    Returns:
        The means, flat: `<model>.<axis>` and `win_rate.<contest>`.

    Raises:
        DataError: no model, no prompt or no text to evaluate on.
        Interrupted: asked to stop.
    """
    if not contestants:
        raise DataError("no model to evaluate; name at least one")
    context = context or Context()
    stage.run.load()
    measured = {
        contestant.name: _measure(stage, recipe, contestant, tokenizer, held_out, step=STEPS_A_MODEL * place)
        for place, contestant in enumerate(contestants)
    }
    evaluation = evaluation_record(recipe, measured, _documents(recipe, held_out), seed=stage.seed)
    if len(contestants) > 1:
        evaluation["kl"] = _divergence(stage, recipe, contestants, measured, held_out).to_json()
    if context.reward_model:
        evaluation["reward_model"] = dict(context.reward_model)
    samples = sample_conversations(
        held_out.prompts[: recipe.num_prompts],
        {name: results.answers for name, results in measured.items()},
        recipe.sample_tasks,
    )
    figures = draw_figures(evaluation, context.series)
    page = report_html(
        evaluation,
        samples=samples,
        figures=figures,
        mistakes=context.mistakes,
        seconds=context.seconds,
        facts=context.facts,
    )
    write_report(stage, evaluation, samples, context, figures=figures, page=page)
    stage.run.record(STEPS_A_MODEL * len(contestants) + 1)
    return {
        **{
            f"{name}.{figure}": scores[figure]["mean"]
            for name, scores in evaluation["evaluation"].items()
            for figure in (*AXES, "bits_per_byte")
        },
        **{f"win_rate.{contest}": estimate["mean"] for contest, estimate in evaluation["win_rate"].items()},
    }


def evaluation_record(
    recipe: EvaluateRecipe, measured: Mapping[str, Measured], documents: Sequence[HeldOutDocument], *, seed: int
) -> dict[str, Any]:
    """Return `evaluation.json`: estimates by model, contests, kinds, tax; plain values only.

    Args:
        recipe: gives the bootstrap's draws and the sampling.
        measured: model -> results, in the order of their making.
        documents: the ones that were read.
        seed: of the bootstrap.
    """
    draws = recipe.bootstrap_draws
    contests = {f"{later}_vs_{earlier}": (later, earlier) for earlier, later in pairwise(measured)}
    comparisons = {
        name: compare(measured[later].answers, measured[earlier].answers, seed=seed, draws=draws)
        for name, (later, earlier) in contests.items()
    }
    num_bytes = [document.num_bytes for document in documents]
    taxes = {
        name: _tax(measured[earlier], measured[later], num_bytes, seed=seed, draws=draws)
        for name, (later, earlier) in contests.items()
    }
    first, last = next(iter(measured)), list(measured)[-1]
    if len(measured) > 2:
        taxes[f"{last}_vs_{first}"] = _tax(measured[first], measured[last], num_bytes, seed=seed, draws=draws)
    return {
        "models": list(measured),
        "evaluation": {
            name: {**_to_json(results.scores.overall), "bits_per_byte": results.bits_per_byte.to_json()}
            for name, results in measured.items()
        },
        "win_rate": {name: comparison.overall.win_rate.to_json() for name, comparison in comparisons.items()},
        "by_kind": {
            kind: {
                **{name: _to_json(results.scores.by_kind[kind]) for name, results in measured.items()},
                "win_rate": {name: found.by_kind[kind].win_rate.to_json() for name, found in comparisons.items()},
            }
            for kind in measured[first].scores.by_kind
        },
        "comparison": {name: comparison.to_json() for name, comparison in comparisons.items()},
        "worse": _worse(comparisons),
        "alignment_tax": {name: tax.to_json() for name, tax in taxes.items()},
        "few_shot": {name: results.few_shot.to_json() for name, results in measured.items() if results.few_shot},
        "sampling": recipe.sampling.model_dump(),
        "seed": seed,
    }


def sample_conversations(
    prompts: Sequence[EvaluationPrompt], answers: Mapping[str, Sequence[ScoredAnswer]], tasks: Sequence[str]
) -> list[dict[str, Any]]:
    """Return three prompts with every model's first answer: the first prompt of each of `tasks`, then of other tasks.

    Nobody chooses by looking at answers, so that the samples neither flatter nor blame.
    """
    first: dict[str, EvaluationPrompt] = {}
    for prompt in prompts:
        first.setdefault(prompt.task, prompt)
    wanted = [task for task in tasks if task in first]
    wanted += [task for task in first if task not in wanted]
    by_prompt = {name: {row.prompt: row for row in rows if row.sample == 0} for name, rows in answers.items()}
    return [
        {
            "prompt": prompt.id,
            "kind": prompt.kind,
            "task": prompt.task,
            "messages": [dict(message) for message in prompt.messages],
            "answers": {
                name: {"answer": rows[prompt.id].answer, **{axis: getattr(rows[prompt.id], axis) for axis in AXES}}
                for name, rows in by_prompt.items()
            },
        }
        for prompt in (first[task] for task in wanted[:NUM_SAMPLES_SHOWN])
    ]


def report_with_verdict(artifact: Artifact, verdict: Mapping[str, Any] | None) -> str:
    """Return the page of a finished evaluation with the gate's verdict on it; the artifact stays as it is."""
    context = read_json(artifact.file("context.json"))
    evaluation = read_json(artifact.file("evaluation.json"))
    return report_html(
        evaluation,
        samples=read_json(artifact.file("samples.json")),
        figures=draw_figures(evaluation, context["series"]),
        mistakes=context["mistakes"],
        seconds=context["seconds"],
        verdict=verdict,
        facts=context["facts"],
    )


def _measure(
    stage: Stage,
    recipe: EvaluateRecipe,
    contestant: Contestant,
    tokenizer: Tokenizer,
    held_out: HeldOut,
    *,
    step: int,
) -> Measured:
    """Let one model answer, read and choose."""
    draws, context = recipe.bootstrap_draws, contestant.model.config.max_positions
    answers = _answers(stage, recipe, contestant, held_out)
    write_answers(stage.folder / f"answers-{contestant.name}.jsonl.gz", answers)
    scores = score_answers(answers, seed=stage.seed, draws=draws)
    stage.run.record(step + 1, **{f"{contestant.name}/{axis}": scores.overall[axis].mean for axis in AXES})
    stage.run.raise_if_stopping()

    documents = _documents(recipe, held_out)
    bits = document_bits(contestant.model, documents, begin_id=tokenizer.reserved.end_of_text, context=context)
    bits_per_byte = bits_per_byte_of(bits, documents, seed=stage.seed, draws=draws)
    stage.run.record(step + 2, **{f"{contestant.name}/bits_per_byte": bits_per_byte.mean})
    stage.run.raise_if_stopping()

    few_shot = None
    if held_out.choice_tasks and recipe.num_choices:
        tasks = [ChoiceTask(task.name, task.items[: recipe.num_choices], task.pool) for task in held_out.choice_tasks]
        few_shot = score_choices(
            contestant.model,
            tokenizer,
            tasks,
            context=context,
            seed=stage.seed,
            shots=recipe.shots,
            num_draws=recipe.shot_draws,
            draws=draws,
        )
    stage.run.record(step + 3)
    stage.run.raise_if_stopping()
    return Measured(answers=answers, scores=scores, bits=bits, bits_per_byte=bits_per_byte, few_shot=few_shot)


def _answers(stage: Stage, recipe: EvaluateRecipe, contestant: Contestant, held_out: HeldOut) -> list[ScoredAnswer]:
    """Return the model's judged answers, from before the kill where they were finished."""
    path = stage.run.checkpoints / f"answers-{contestant.name}.jsonl.gz"
    if path.exists():
        return read_answers(path)
    answers = answer_prompts(
        contestant,
        held_out.prompts[: recipe.num_prompts],
        held_out.judge,
        sampling=recipe.sampling,
        seed=derive_seed(stage.seed, "evaluation"),
        batch_size=recipe.batch_size,
        num_samples=recipe.num_samples,
        on_batch=lambda _: stage.run.raise_if_stopping(),
    )
    partial = path.with_name(f"partial-{path.name}")
    write_answers(partial, answers)
    partial.replace(path)
    return answers


def _documents(recipe: EvaluateRecipe, held_out: HeldOut) -> list[HeldOutDocument]:
    """Return the documents to read; an empty one says nothing of any model."""
    return [document for document in held_out.documents if document.num_bytes][: recipe.num_documents]


def _divergence(
    stage: Stage,
    recipe: EvaluateRecipe,
    contestants: Sequence[Contestant],
    measured: Mapping[str, Measured],
    held_out: HeldOut,
) -> Estimate:
    """Return how far the last model is from the one before it, on its own answers."""
    reference, policy = contestants[-2:]
    prompts = {prompt.id: policy.encode(prompt.messages) for prompt in held_out.prompts[: recipe.num_prompts]}
    answers = [answer for answer in measured[policy.name].answers if answer.tokens]
    return response_divergence(
        policy.model,
        reference.model,
        [prompts[answer.prompt] for answer in answers],
        [answer.tokens for answer in answers],
        batch_size=recipe.batch_size,
        seed=stage.seed,
        draws=recipe.bootstrap_draws,
    )


def write_report(
    stage: Stage,
    evaluation: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]],
    context: Context,
    *,
    figures: Sequence[Figure],
    page: str,
) -> None:
    """Write the files of a report's artifact: numbers, samples, context, plots and the page."""
    write_json_atomic(stage.folder / "evaluation.json", evaluation)
    write_json_atomic(stage.folder / "samples.json", samples)
    shown = {
        "mistakes": context.mistakes,
        "series": context.series,
        "seconds": context.seconds,
        "facts": context.facts,
    }
    write_json_atomic(stage.folder / "context.json", shown)
    (stage.folder / "plots").mkdir(exist_ok=True)
    for figure in figures:
        write_atomic(stage.folder / "plots" / f"{figure.name}.svg", figure.svg)
    write_atomic(stage.folder / "report.html", page)


def _tax(earlier: Measured, later: Measured, num_bytes: Sequence[int], *, seed: int, draws: int) -> Tax:
    return alignment_tax(
        earlier.bits,
        later.bits,
        num_bytes,
        earlier_few_shot=earlier.few_shot,
        later_few_shot=later.few_shot,
        seed=seed,
        draws=draws,
    )


def _worse(comparisons: Mapping[str, Comparison]) -> list[str]:
    """Name what the last model does worse than the one before it."""
    latest = list(comparisons.values())[-1:]
    return [setback.line() for comparison in latest for setback in setbacks(comparison)]


def _to_json(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {axis: estimate.to_json() for axis, estimate in estimates.items()}
