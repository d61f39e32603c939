"""Policy, reference, value model, reward model and second judge as adapters over one set of weights.

Against: each of them as a model of its own, with the same numbers in it.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.conftest import Open, assert_same_bits
from tests.training.test_ppo import PROMPTS, metrics_of
from tests.training.test_ppo import RECIPE as PPO
from tests.training.test_reward import RECIPE as REWARD
from tests.training.test_reward import labeled
from tests.training.test_roles import Sent
from torch import Tensor, nn

from sanbai.data.conversations import Conversation
from sanbai.data.packing import EncodedItems
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.device import Compute, autocast
from sanbai.foundation.errors import ModelError
from sanbai.foundation.files import write_json_atomic
from sanbai.foundation.seeds import torch_generator
from sanbai.foundation.stage import Stage
from sanbai.generation.precision import decoding_copy
from sanbai.model.adapters.adapter import add_adapter
from sanbai.model.adapters.low_rank import LowRankLinear
from sanbai.model.adapters.peft_folder import load_adapter
from sanbai.model.adapters.recipe import AdapterRecipe
from sanbai.model.adapters.shared import copy_learning, over_same_weights, place_models
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel, ScalarModel, new_scalar_head
from sanbai.model.hugging_face import load_language_model, load_scalar_head, load_scalar_model, save_model
from sanbai.text.tokenizer import Tokenizer
from sanbai.training import players as players_module
from sanbai.training import ppo
from sanbai.training.adapter_folder import ADAPTER
from sanbai.training.learner import Learner
from sanbai.training.players import Players, load_adapted_players, load_players
from sanbai.training.ppo import PpoRecipe, train_ppo
from sanbai.training.reward import train_reward
from sanbai.training.roles import Models, RolesRecipe
from sanbai.training.rollouts import Score

LORA = AdapterRecipe(method="lora", rank=2, alpha=8.0, targets=("query", "value", "out", "up", "down"), dropout=0.3)
#: Another value of each field of `[adapter]`.
OTHER_ADAPTERS: dict[str, Any] = {
    "method": "none",
    "rank": 3,
    "alpha": 1.0,
    "rank_stabilised": True,
    "targets": ("query",),
    "dropout": 0.6,
    "num_virtual_tokens": 3,  # of the other methods, as the next
    "encoder_width": 9,
}
RECIPE = PPO.model_copy(
    update={
        "num_iterations": 2,
        "judge_iterations": 1,
        "batch_prompts": 8,
        "minibatch_prompts": 4,
        "num_epochs": 1,
        "micro_batch_tokens": 30,
        "learning_rate": 2e-2,
        "value_learning_rate": 1e-2,
    }
)
ROWS = torch.randint(6, 290, (3, 12), generator=torch.Generator().manual_seed(7))


def bytes_of(models: Iterable[nn.Module]) -> int:
    """Bytes of all models' parameters, memory that several of them hold counted once."""
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage() for m in models for each in m.parameters()}
    return sum(storage.nbytes() for storage in storages.values())


def learned_bytes(model: nn.Module) -> int:
    return sum(each.numel() * each.element_size() for each in model.parameters() if each.requires_grad)


def models_of(players: Players) -> list[nn.Module]:
    """All who play, the value model among them."""
    return [players.policy, copy_learning(players.reward.model), players.reward.model, players.judge.model]


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@dataclass(frozen=True)
class House:
    """The artifacts that practice starts from, and what makes stages."""

    base: Artifact
    reward: Artifact
    judge: Artifact
    open_stage: Open
    compute: Compute
    tokenizer: Tokenizer
    items: EncodedItems

    def stage(self, name: str, start: Artifact | None = None) -> Stage:
        parents = {"base": self.base, "start": start or self.base, "reward": self.reward, "judge": self.judge}
        return replace(self.open_stage(name), parents=parents)

    def players(self, start: Artifact | None = None, compute: Compute | None = None) -> Players:
        return load_adapted_players(self.stage("players", start), LORA, compute or self.compute)

    def practise(
        self, stage: Stage, players: Players, recipe: PpoRecipe = RECIPE, *, judge: Score | None = None
    ) -> dict[str, Any]:
        return train_ppo(
            stage,
            recipe,
            self.compute,
            policy=players.policy,
            value=copy_learning(players.reward.model),
            reward=players.reward,
            judge=judge or players.judge,
            tokenizer=self.tokenizer,
            prompts=PROMPTS,
            judge_prompts=PROMPTS[:4],
            pretraining=self.items,
            save=players.save,
        )


class Pleased:
    """A judge that likes whatever comes later."""

    def __init__(self) -> None:
        self._mood = itertools.count()

    def __call__(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        return [float(next(self._mood))] * len(responses)


def reward_artifact(
    stage: Stage, house: tuple[Artifact, Compute, Tokenizer], demonstrations: list[Conversation], adapter: AdapterRecipe
) -> tuple[Artifact, dict[str, Any]]:
    base, compute, tokenizer = house
    metrics = train_reward(
        replace(stage, name=stage.folder.parent.name, parents={"supervised": base}),
        REWARD,
        compute,
        model=load_language_model(base.path),
        tokenizer=tokenizer,
        rankings=labeled(40),
        demonstrations=demonstrations,
        adapter=adapter,
    )
    return Artifact(stage.folder, {"parents": {"supervised": base.name}}), metrics


@pytest.fixture
def house(
    open_stage: Open,
    compute: Compute,
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: EncodedItems,
    demonstrations: list[Conversation],
    tmp_path: Path,
) -> House:
    base = Artifact(tmp_path / "model-base", {})
    base.path.mkdir()
    save_model(model, base.path, tokenizer)
    made = [
        reward_artifact(open_stage(name), (base, compute, tokenizer), demonstrations, LORA)[0]
        for name in ("reward", "judge")
    ]
    return House(base, *made, open_stage, compute, tokenizer, items)


# --- one set of weights -------------------------------------------------------------------------------------------


def test_trees_over_the_same_weights_know_nothing_of_each_others_adapters(model: LanguageModel) -> None:
    alone = copy.deepcopy(model.eval())
    first, second = over_same_weights(model), over_same_weights(model)
    for number, tree in enumerate((first, second)):
        adapted = add_adapter(tree, LORA, torch_generator(number, "tests"))
        for _, linear in adapted.linears():
            for piece in linear.pieces:
                nn.init.normal_(piece.b, generator=torch_generator(number, "b"))
    with torch.no_grad():
        assert torch.equal(model(ROWS), alone(ROWS)), "the base is the base, whatever the others hold"
        assert not torch.allclose(first(ROWS), second(ROWS))
    assert not any(isinstance(each, LowRankLinear) for each in model.modules())
    assert bytes_of([model, first, second]) == bytes_of([alone]) + learned_bytes(first) + learned_bytes(second)


def test_a_copy_of_what_learns_moves_alone(model: LanguageModel) -> None:
    add_adapter(model, LORA, torch_generator(0, "tests"))
    copied = copy_learning(model)
    for (name, theirs), (_, ours) in zip(model.named_parameters(), copied.named_parameters(), strict=True):
        assert (ours is theirs) is (not theirs.requires_grad), name
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("tied", [True, False])
def test_frozen_products_in_bfloat16_change_no_bit_of_what_autocast_computes(config: ModelConfig, tied: bool) -> None:
    config = config.model_copy(update={"tied_embeddings": tied, "query_key_norm": True})
    model = LanguageModel(config, torch_generator(0, "tests")).eval()  # no dropout
    compute = Compute(num_threads=1, precision="bfloat16")
    adapted = add_adapter(model, LORA, torch_generator(1, "tests"))
    for _, linear in adapted.linears():
        for piece in linear.pieces:
            nn.init.normal_(piece.b, std=0.1, generator=torch_generator(2, "b"))
    (placed,) = place_models([model], device="cpu", product_dtype=compute.product_dtype)
    outputs, gradients = [], []
    for each in (model, placed):
        with autocast(compute):
            logits = each(ROWS)
        outputs.append(logits)
        learning = [parameter for parameter in each.parameters() if parameter.requires_grad]
        gradients.append(torch.autograd.grad(logits.float().logsumexp(-1).sum(), learning))
    assert torch.equal(*outputs)
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
    # Linear layers hold half as much, and nothing else changes.
    products = [module for module in model.modules() if isinstance(module, nn.Linear | LowRankLinear)]
    halved = sum(module.weight.numel() * 2 for module in products)
    assert bytes_of([model]) - bytes_of([placed]) == halved
    assert {each.dtype for each in placed.parameters() if each.requires_grad} == {torch.float32}
    # What decodes is in bfloat16 whole, and has its own of nothing that is so already.
    decoder = decoding_copy(placed, "bfloat16")
    assert {each.dtype for each in decoder.parameters()} == {torch.bfloat16}
    assert bytes_of([placed, decoder]) < bytes_of([placed]) + bytes_of([decoder]) - halved / 2
    assert {each.dtype for each in placed.parameters() if each.requires_grad} == {torch.float32}, "as before"


# --- the reward model ---------------------------------------------------------------------------------------------


def test_a_reward_model_learns_as_an_adapter_and_a_head_and_its_control_does_not(
    house: House, demonstrations: list[Conversation], model: LanguageModel
) -> None:
    given = (house.base, house.compute, house.tokenizer)
    made, metrics = reward_artifact(house.open_stage("again"), given, demonstrations, LORA)
    losses = metrics_of(replace(house.open_stage("again")), "loss")
    assert losses[-1] < losses[0] - 0.1
    assert metrics["demonstration_mean"] == pytest.approx(0.0, abs=1e-5)
    assert_same_bits(dict(load_language_model(house.base.path).named_parameters()), dict(model.named_parameters()))

    # Beside the base, and merged, it says the same.
    scalar = ScalarModel.on_trunk(load_language_model(house.base.path).trunk, load_scalar_head(made.path))
    load_adapter(scalar, made.path / ADAPTER)
    with torch.no_grad():
        torch.testing.assert_close(scalar(ROWS), load_scalar_model(made.path)(ROWS), rtol=1e-5, atol=1e-5)
    untrained = ScalarModel.on_trunk(copy.deepcopy(model.trunk), load_scalar_head(made.path))
    with torch.no_grad():
        assert not torch.allclose(scalar(ROWS), untrained(ROWS), atol=1e-3), "the trunk's adapter has learnt too"


def test_trap_28_every_field_of_lora_changes_the_reward_models_run_but_dropout(
    house: House, demonstrations: list[Conversation]
) -> None:
    others = OTHER_ADAPTERS
    assert others.keys() == AdapterRecipe.model_fields.keys()

    def trace(name: str, adapter: AdapterRecipe) -> str:
        stage = house.open_stage(f"traced {name}")
        # One name for all: it enters the seed.
        stage.folder = stage.folder.parent / "folder" / "artifact"
        stage.folder.mkdir(parents=True)
        reward_artifact(stage, (house.base, house.compute, house.tokenizer), demonstrations, adapter)
        return (stage.run.folder / "metrics.jsonl").read_text()

    plain = trace("plain", LORA)
    unchanged = [name for name in others if trace(name, LORA.model_copy(update={name: others[name]})) == plain]
    assert sorted(unchanged) == ["dropout", "encoder_width", "num_virtual_tokens"]


def test_a_reward_model_that_is_no_adapter_of_the_base_is_a_model_of_its_own(
    house: House, demonstrations: list[Conversation], model: LanguageModel
) -> None:
    given = (house.base, house.compute, house.tokenizer)
    whole, _ = reward_artifact(house.open_stage("whole"), given, demonstrations, AdapterRecipe())
    players = load_adapted_players(replace(house, reward=whole).stage("players"), LORA, house.compute)
    with torch.no_grad():
        assert torch.equal(players.reward.model(ROWS), load_scalar_model(whole.path)(ROWS))
    others = [players.policy, players.judge.model]
    assert bytes_of([players.reward.model, *others]) == bytes_of([players.reward.model]) + bytes_of(others)
    assert bytes_of(others) == bytes_of([model]) + sum(map(learned_bytes, others))


# --- practice -----------------------------------------------------------------------------------------------------


def test_trap_23_the_base_is_byte_identical_and_the_reference_is_a_separate_copy_to_the_bit(
    house: House, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Learner] = []
    gather = Learner.gather
    monkeypatch.setattr(Learner, "gather", lambda *given, **named: seen.append(gather(*given, **named)) or seen[-1])
    loaded: list[LanguageModel] = []
    load = players_module.load_language_model
    monkeypatch.setattr(players_module, "load_language_model", lambda path: loaded.append(load(path)) or loaded[-1])
    stage = house.stage("ppo")
    metrics = house.practise(stage, house.players(), judge=Pleased())
    (learner,), (base,) = seen, loaded
    separate = load_language_model(house.base.path)
    assert_same_bits(weights_of(base), weights_of(model))
    assert metrics["kept_iteration"] > 0
    with torch.no_grad():
        assert torch.equal(learner.reference(ROWS), separate(ROWS))
        assert not torch.allclose(learner.policy(ROWS), separate(ROWS), atol=1e-3)
    # What was written is the base with the adapter that was written.
    written = load_language_model(stage.folder)
    beside = load_adapter(separate, stage.folder / ADAPTER).model
    with torch.no_grad():
        torch.testing.assert_close(written(ROWS), beside(ROWS), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(learner.policy(ROWS), beside(ROWS), rtol=0, atol=0)
    settings = json.loads((stage.folder / ADAPTER / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == house.base.name


def test_over_one_set_of_weights_and_over_five_all_numbers_are_the_same(house: House) -> None:
    shared, separate = house.players(), house.players()
    separate = replace(
        separate,
        policy=copy.deepcopy(separate.policy),
        reward=replace_model(separate.reward),
        judge=replace_model(separate.judge),
    )
    outcomes = {}
    for name, players in (("shared", shared), ("separate", separate)):
        stage = house.stage(name)
        metrics = house.practise(stage, players)
        rows = (stage.run.folder / "metrics.jsonl").read_text()
        outcomes[name] = (metrics, rows, weights_of(load_language_model(stage.folder)))
    assert outcomes["shared"][:2] == outcomes["separate"][:2]
    assert_same_bits(outcomes["shared"][2], outcomes["separate"][2])


def replace_model(scorer: Any) -> Any:
    scorer.model = copy.deepcopy(scorer.model)
    return scorer


def test_adapted_players_say_before_the_first_step_what_whole_models_say(house: House) -> None:
    """Whole models: the merged ones of the same artifacts, each read into memory of its own."""
    adapted, whole = house.players(), load_players(house.stage("whole"), house.compute)
    with torch.no_grad():
        torch.testing.assert_close(adapted.policy(ROWS), whole.policy(ROWS), rtol=0, atol=1e-6)
        torch.testing.assert_close(adapted.reward.model(ROWS), whole.reward.model(ROWS), rtol=1e-6, atol=1e-6)
    rows = [row.tolist() for row in ROWS]
    for ours, theirs in ((adapted.reward, whole.reward), (adapted.judge, whole.judge)):
        assert ours(rows, rows) == pytest.approx(theirs(rows, rows), abs=2e-6)
    assert adapted.reward(rows, rows) != pytest.approx(adapted.judge(rows, rows), abs=1e-3)

    first = RECIPE.model_copy(update={"num_iterations": 1, "minibatch_prompts": 12, "num_epochs": 1})
    rows_of = {}
    for name, players in (("adapted", adapted), ("whole", whole)):
        stage = house.stage(f"losses of {name}")
        house.practise(stage, players, first)
        rows_of[name] = {key: metrics_of(stage, key)[0] for key in ("policy_loss", "value_loss", "ptx_loss", "reward")}
    assert rows_of["adapted"] == pytest.approx(rows_of["whole"], abs=1e-6, rel=1e-6)


def test_five_players_take_the_memory_of_one_model_and_what_learns(house: House, model: LanguageModel) -> None:
    players = house.players()
    learner = Learner.gather(players.policy, RECIPE.optimizer, ema_decay=0.9, keeps_average=True)
    trees = models_of(players)
    trees += [learner.reference]
    assert bytes_of(trees) == bytes_of([model]) + sum(map(learned_bytes, trees))
    assert sum(map(learned_bytes, trees)) < bytes_of([model])
    whole = load_players(house.stage("whole"), house.compute)
    others = Learner.gather(whole.policy, RECIPE.optimizer, ema_decay=0.9, keeps_average=True)
    separate = [
        whole.policy,
        copy_learning(whole.reward.model),
        whole.reward.model,
        whole.judge.model,
        others.reference,
    ]
    assert bytes_of(separate) > 4.9 * bytes_of([model])
    learned = {name for name, parameter in players.policy.named_parameters() if parameter.requires_grad}
    assert learner.average.tensors().keys() == learned, "the average is of adapters alone"


def test_checkpoints_hold_only_what_learns(house: House, model: LanguageModel) -> None:
    stage, kept = house.stage("ppo"), []
    save = stage.run.save
    stage.run.save = lambda step, tensors, state: (kept.append(dict(tensors)), save(step, tensors, state))  # type: ignore[method-assign, assign]
    house.practise(stage, house.players())
    assert kept
    frozen = dict(model.named_parameters()).keys()
    for tensors in kept:
        for part in ("policy", "value", "average"):
            names = {name.partition(":")[2] for name in tensors if name.startswith(f"{part}:")}
            assert names
            assert not (names - {"head.weight", "head.bias"}) & frozen, part


def test_killed_twice_and_in_three_threads_it_ends_in_the_same_bits(
    house: House, outcome_after_kills: Callable[..., dict[str, Tensor]], threads: Callable[[int], None]
) -> None:
    recipe = RECIPE.model_copy(update={"num_iterations": 3})

    def train(stage: Stage) -> None:
        house.practise(stage, house.players(), recipe)

    whole = outcome_after_kills(train, "whole")
    assert_same_bits(outcome_after_kills(train, "killed", (1, 2)), whole)
    threads(3)
    assert_same_bits(outcome_after_kills(train, "threads"), whole)


@pytest.mark.parametrize("staleness", [0, 1])
def test_on_copies_elsewhere_only_what_learns_travels_and_the_numbers_are_the_same(
    house: House, outcome_after_kills: Callable[..., dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch, staleness: int
) -> None:
    travelled: set[str] = set()

    class Noting(Sent):
        def load(self, weights: Mapping[str, Tensor]) -> None:
            travelled.update(weights)
            super().load(weights)

    def train(stage: Stage) -> None:
        roles = RolesRecipe(rollout_workers=2, learners=2)
        update = {"num_iterations": 3, "rollout_rows": 3, "staleness": staleness, "roles": roles}
        house.practise(stage, house.players(), RECIPE.model_copy(update=update))

    here = outcome_after_kills(train, "here")
    monkeypatch.setattr(ppo, "open_workers", Noting)
    assert_same_bits(outcome_after_kills(train, "there"), here)
    players = house.players()
    learning = Models(players.policy, copy_learning(players.reward.model)).weights()
    assert travelled == set(learning)
    assert not any(name.endswith("token_embedding.weight") for name in travelled)


def test_a_policy_that_has_practised_goes_on_over_the_same_base_and_is_its_own_reference(house: House) -> None:
    first = house.stage("first")
    house.practise(first, house.players(), judge=Pleased())
    served = Artifact(first.folder, {})
    players = house.players(served)
    learner = Learner.gather(players.policy, RECIPE.optimizer, ema_decay=0.9, keeps_average=True)
    was = load_language_model(served.path)
    with torch.no_grad():
        torch.testing.assert_close(learner.reference(ROWS), was(ROWS), rtol=1e-5, atol=1e-5)
    trees = [
        players.policy,
        copy_learning(players.reward.model),
        players.reward.model,
        players.judge.model,
        learner.reference,
    ]
    assert bytes_of(trees) == bytes_of([was]) + sum(map(learned_bytes, trees)), "still one set of weights"
    second = house.stage("second", served)
    house.practise(second, players, judge=Pleased())
    beside = load_adapter(load_language_model(house.base.path), second.folder / ADAPTER).model
    with torch.no_grad():
        torch.testing.assert_close(load_language_model(second.folder)(ROWS), beside(ROWS), rtol=1e-5, atol=1e-5)
        assert not torch.allclose(beside(ROWS), was(ROWS), atol=1e-3)


def test_a_start_of_other_weights_brings_its_own(house: House, config: ModelConfig, tmp_path: Path) -> None:
    other = Artifact(tmp_path / "model-other", {})
    other.path.mkdir()
    save_model(LanguageModel(config, torch_generator(9, "other")), other.path, house.tokenizer)
    players, stage = house.players(other), house.stage("ppo", other)
    players = load_adapted_players(stage, LORA, house.compute)
    was = load_language_model(other.path)
    with torch.no_grad():
        assert torch.equal(players.policy(ROWS), was(ROWS))
    house.practise(stage, players, RECIPE.model_copy(update={"num_iterations": 1}))
    settings = json.loads((stage.folder / ADAPTER / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == other.name
    beside = load_adapter(was, stage.folder / ADAPTER).model
    with torch.no_grad():
        torch.testing.assert_close(load_language_model(stage.folder)(ROWS), beside(ROWS), rtol=1e-5, atol=1e-5)


def test_in_bfloat16_it_practises_and_the_written_model_is_exact(house: House, model: LanguageModel) -> None:
    """Frozen products are rounded for computing alone: written is the base as it was, with the products added."""
    compute = Compute(num_threads=1, precision="bfloat16")
    in_half = replace(house, compute=compute)
    stage = in_half.stage("half")
    metrics = in_half.practise(stage, in_half.players())
    assert metrics["kept_iteration"] >= 0
    written, before = load_language_model(stage.folder), weights_of(model)
    untouched = [name for name in before if "norm" in name or "embedding" in name or "gate" in name]
    assert untouched
    for name in untouched:
        assert torch.equal(written.get_parameter(name), before[name]), name
    beside = load_adapter(load_language_model(house.base.path), stage.folder / ADAPTER).model
    with torch.no_grad():
        torch.testing.assert_close(written(ROWS), beside(ROWS), rtol=1e-5, atol=1e-5)


def test_a_head_is_read_without_the_rest_of_its_model(house: House, tmp_path: Path, model: LanguageModel) -> None:
    scalar = ScalarModel.on_trunk(model.trunk, new_scalar_head(32, torch_generator(3, "head")))
    nn.init.constant_(scalar.head.bias, 0.75)
    folder = tmp_path / "scalar"
    folder.mkdir()
    save_model(scalar, folder, house.tokenizer)
    head = load_scalar_head(folder)
    assert torch.equal(head.weight, scalar.head.weight)
    assert head.bias.item() == 0.75
    with pytest.raises(ModelError, match="wanted a scalar model"):
        load_scalar_head(house.base.path)
    write_json_atomic(folder / "config.json", {"architectures": ["Nothing"]})
    with pytest.raises(ModelError, match="architecture Nothing"):
        load_scalar_head(folder)
