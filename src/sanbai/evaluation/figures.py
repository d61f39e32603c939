"""The figures of a report, each drawn once and explained in a sentence; those without data are left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sanbai.evaluation.plots import (
    JudgeSeries,
    Rows,
    axes_plot,
    loss_plot,
    render_svg,
    reward_against_kl_plot,
    tax_plot,
    win_rate_by_kind_plot,
)
from sanbai.evaluation.reward_plots import (
    accuracy_over_steps_plot,
    length_gap_plot,
    reliability_plot,
    reward_accuracy_plot,
)
from sanbai.evaluation.theme import model_label

STAGES = {"pretrain": "Pretraining", "supervise": "Supervised", "reward": "Reward model"}
"""Series with a loss, and what people read above it."""
JUDGES = (
    JudgeSeries("reward", "kl", "reward it is trained on"),
    JudgeSeries("judge_reward", "judged_kl", "second judge, held-out prompts"),
    JudgeSeries("gold_utility", "judged_kl", "gold utility, held-out prompts"),
)
"""What PPO's metrics say of its answers, the judge that it is trained on first."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One drawing.

    Attributes:
        name: of its file, without `.svg`.
        explanation: what to see in it, one sentence.
        svg: the drawing itself.
        wide: whether it takes the page's whole width.
    """

    name: str
    explanation: str
    svg: str
    wide: bool = False


def draw_figures(evaluation: Mapping[str, Any], series: Mapping[str, Rows]) -> list[Figure]:
    """Draw every figure that there is data for.

    Args:
        evaluation: the content of `evaluation.json`.
        series: stage (pretrain, supervise, reward, ppo) -> its rows of metrics, each with `step`.
    """
    models = evaluation["evaluation"]
    figures = [
        Figure(
            "axes",
            "Shares of answers to the same held-out prompts, with 95 % intervals; each model starts from the last.",
            render_svg(axes_plot(models)),
        )
    ]
    if by_kind := _win_rates_by_kind(evaluation):
        latest = list(models)[-1]
        before = list(models)[-2]
        title = f"{model_label(latest)} against {model_label(before).lower()}, by kind of prompt"
        text = (
            "Orange kinds are won beyond their interval, blue ones lost; grey ones are undecided. "
            "A judge that cannot tell answers of a kind apart lets practice forget it."
        )
        figures.append(Figure("win_rate_by_kind", text, render_svg(win_rate_by_kind_plot(by_kind, title=title))))
    figures += _reward_figures(evaluation.get("reward_model"), series.get("reward", []))
    practice = series.get("ppo", [])
    if any(judge.kl in row and judge.metric in row for row in practice for judge in JUDGES):
        text = (
            "Each dot is an iteration of practice. A reward that climbs proves nothing alone: where the other judges "
            "turn down, the policy has begun to please its reward model instead of people."
        )
        figures.append(
            Figure("reward_against_kl", text, render_svg(reward_against_kl_plot(practice, JUDGES)), wide=True)
        )
    few_shot = {name: scores["accuracy"] for name, scores in evaluation.get("few_shot", {}).items()}
    text = (
        "Left, what held-out text costs each model to read, less is better; PPO mixes pretraining text into every step "
        "so that this stays level."
    ) + (" Right, multiple-choice questions answered with examples in the prompt." if few_shot else "")
    figures.append(Figure("alignment_tax", text, render_svg(tax_plot(models, few_shot)), wide=bool(few_shot)))
    curves = {
        label: series[stage] for stage, label in STAGES.items() if any("loss" in r for r in series.get(stage, []))
    }
    if curves:
        text = (
            "Pale lines are single steps, dark lines their running mean; in nats a token, for the reward model a pair."
        )
        figures.append(Figure("loss", text, render_svg(loss_plot(curves)), wide=True))
    return figures


def _win_rates_by_kind(evaluation: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """Return kind -> win rate of the last model against the one before it."""
    models = list(evaluation["evaluation"])
    if len(models) < 2:
        return {}
    key = f"{models[-1]}_vs_{models[-2]}"
    return {kind: scores["win_rate"][key] for kind, scores in evaluation["by_kind"].items()}


def _reward_figures(reward_model: Mapping[str, Any] | None, rows: Rows) -> list[Figure]:
    if not reward_model:
        return []
    text = (
        "Held-out labelers' strict pairs on held-out prompts. People agree with each other only so often, which bounds "
        "what any reward model can reach."
    )
    figures = [Figure("reward_accuracy", text, render_svg(reward_accuracy_plot(reward_model)))]
    figures += trust_figures(reward_model)
    agreement = reward_model.get("labeler_agreement")
    if agreement is not None and any("accuracy" in row for row in rows):
        level = agreement["mean"] if isinstance(agreement, Mapping) else agreement
        text = (
            "Accuracy on the pairs of each step, smoothed; the dashed line is the labelers' agreement among themselves."
        )
        svg = render_svg(accuracy_over_steps_plot(rows, labeler_agreement=level))
        figures.append(Figure("reward_accuracy_over_steps", text, svg))
    return figures


def trust_figures(reward_model: Mapping[str, Any]) -> list[Figure]:
    """Draw when a reward model's word may be taken: by its stated probability, and by the answers' lengths."""
    figures = []
    if reliability := reward_model.get("reliability"):
        text = (
            "Pairs in bins of like confidence, with 95 % intervals over prompts. Below the dashed line the model is "
            "too sure of itself. The mean distance from it is "
            f"{100 * reward_model['calibration_error']:.1f} points."
        )
        figures.append(Figure("reward_reliability", text, render_svg(reliability_plot(reliability))))
    if gaps := reward_model.get("by_length_gap"):
        text = (
            "A model that has only learned to like length would have its orange dots at the top and its blue ones at "
            "the bottom."
        )
        figures.append(Figure("reward_by_length_gap", text, render_svg(length_gap_plot(gaps))))
    return figures
