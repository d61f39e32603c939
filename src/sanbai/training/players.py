"""Who plays in practice: the policy, the reward model, as a copy of which a value model begins, and the second judge.

Either each is a model of its own, or all are LoRA over one set of weights: four models, and the reference and the
averaged weights beside them, in little more memory than one. The base is the supervised model that the reward models
were trained over; a policy that has practised before goes on with its own adapter, and what it was is the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.device import Compute
from sanbai.foundation.seeds import torch_generator
from sanbai.foundation.stage import Stage
from sanbai.model.adapters.adapter import add_adapter
from sanbai.model.adapters.peft_folder import load_adapter
from sanbai.model.adapters.recipe import AdapterRecipe
from sanbai.model.adapters.shared import over_same_weights, place_models
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.model.hugging_face import load_language_model, load_scalar_head, load_scalar_model, save_model
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.adapter_folder import ADAPTER, has_adapter, save_merged
from sanbai.training.reward_model import RewardModel, load_calibration, load_reward_model

SavePolicy = Callable[[LanguageModel, Path, Tokenizer], None]
"""Writes a policy into a folder that exists, with its tokenizer, as `save_model` does."""


@dataclass(frozen=True, slots=True)
class Players:
    """All who are there before the first step, placed.

    Attributes:
        policy: will learn.
        reward: scores.
        judge: watches.
        save: how the policy is written.
    """

    policy: LanguageModel
    reward: RewardModel
    judge: RewardModel
    save: SavePolicy = save_model


def load_players(stage: Stage, compute: Compute) -> Players:
    """Return models of their own.

    Args:
        stage: with the parents `start`, `reward` and `judge`.
        compute: precision and device.
    """
    start, reward, judge = (stage.parents[role].path for role in ("start", "reward", "judge"))
    return Players(
        load_language_model(start).to(compute.device),
        reward=load_reward_model(reward, compute),
        judge=load_reward_model(judge, compute),
    )


def load_adapted_players(stage: Stage, recipe: AdapterRecipe, compute: Compute) -> Players:
    """Return LoRA adapters over one set of weights; saved are the policy's adapter, and the policy with it merged.

    Whoever is neither the base nor an adapter over it brings weights of their own.

    Args:
        stage: with the parents `base`, `start`, `reward` and `judge`.
        recipe: section `[adapter]`, for a policy that has none yet.
        compute: precision and device.

    Raises:
        ModelError: an adapter does not fit.
    """
    base, start, reward, judge = (stage.parents[role] for role in ("base", "start", "reward", "judge"))
    model = load_language_model(base.path)
    goes_on = has_adapter(start.path, base=base)
    beside = base if goes_on else start
    origin = model if beside.name == base.name else load_language_model(start.path)

    policy = over_same_weights(origin)
    if goes_on:
        adapted = load_adapter(policy, start.path / ADAPTER)
    else:
        adapted = add_adapter(policy, recipe, torch_generator(stage.seed, "ppo", "adapter"))
    scorer, watcher = (_scalar_over(model, base, artifact.path) for artifact in (reward, judge))
    policy, scorer, watcher = place_models(
        [policy, scorer, watcher], device=compute.device, product_dtype=compute.product_dtype
    )

    def save(trained: LanguageModel, folder: Path, tokenizer: Tokenizer) -> None:
        save_merged(replace(adapted, model=trained), origin, folder, tokenizer, base=beside)

    return Players(
        policy,
        reward=RewardModel(scorer, load_calibration(reward.path), compute),
        judge=RewardModel(watcher, load_calibration(judge.path), compute),
        save=save,
    )


def _scalar_over(model: LanguageModel, base: Artifact, folder: Path) -> ScalarModel:
    """Return the scalar model of a folder as an adapter and a head over the base's model; both are free to learn."""
    if not has_adapter(folder, base=base):
        return load_scalar_model(folder)
    scalar = ScalarModel.on_trunk(over_same_weights(model.trunk), load_scalar_head(folder))
    load_adapter(scalar, folder / ADAPTER)
    scalar.head.requires_grad_(requires_grad=True)
    return scalar.eval()
