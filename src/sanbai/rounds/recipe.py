"""The whole recipe: one section a stage, joined from the floors that own them, checked before anything starts."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from sanbai.data.conversations import ConversationSource
from sanbai.data.documents import DocumentSource
from sanbai.data.labeled import LabeledSource
from sanbai.data.mixtures import InstructionSource
from sanbai.data.preferences import PreferenceSource
from sanbai.data.recipe import DataRecipe
from sanbai.evaluation.recipe import EvaluateRecipe
from sanbai.foundation.device import Compute
from sanbai.foundation.errors import RecipeError
from sanbai.foundation.recipe import RecipeSection
from sanbai.model.adapters.recipe import AdapterRecipe
from sanbai.model.config import ModelConfig
from sanbai.rounds.gate import GateRecipe
from sanbai.rounds.tasks import LabelRecipe
from sanbai.text.recipe import TokenizerRecipe
from sanbai.training.classify import ClassifyRecipe
from sanbai.training.direct import DirectRecipe
from sanbai.training.distill import DistillRecipe
from sanbai.training.expert_iteration import ExpertIterationRecipe
from sanbai.training.group import GroupRecipe
from sanbai.training.objective import misfit
from sanbai.training.ppo import PpoRecipe
from sanbai.training.pretrain import PretrainRecipe
from sanbai.training.reject import RejectRecipe
from sanbai.training.reward import RewardRecipe
from sanbai.training.self_judge import SelfJudgeRecipe
from sanbai.training.supervise import SuperviseRecipe
from sanbai.world.recipe import WorldRecipe


class FilesRecipe(RecipeSection):
    """Section `[files]`: people's own data; paths are relative to `--data`."""

    documents: tuple[DocumentSource, ...] = ()
    """Text to pretrain on."""
    demonstrations: tuple[ConversationSource, ...] = ()
    """Conversations to imitate."""
    preferences: tuple[PreferenceSource, ...] = ()
    """Compared answers to learn the reward from; their prompts are the ones that the policy practises on."""
    instructions: tuple[InstructionSource, ...] = ()
    """Tasks with templates (FLAN, Wei et al. 2021, arXiv:2109.01652); `num_demonstrations` conversations of their
    mixture are imitated beside the demonstrations."""
    labeled: tuple[LabeledSource, ...] = ()
    """Texts with their classes, for `sanbai train classify`."""
    names: tuple[str, ...] = ()
    """Files of names and phrases, one a line, that `pretrain.objective = "entity_masked"` hides whole."""
    heldout_share: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Share of the preference prompts, and of the labelled texts, that only measure."""
    judge_share: float = Field(default=0.5, gt=0.0, lt=1.0)
    """Share of the other prompts whose comparisons teach the second judge, and not the reward model."""


class Recipe(RecipeSection):
    """Everything that determines what is made. `[serve]` is not here: it changes no artifact."""

    seed: int = Field(default=1, ge=0, lt=2**63)
    """All randomness derives from it."""
    material: Literal["world", "files"] = "world"
    """`world`: the tiny world writes documents, prompts and demonstrations, and judges; `files`: section `[files]`."""
    num_demonstrations: int = Field(default=13_000, ge=1)
    """Demonstrations that the world writes, or conversations drawn from `files.instructions`; of other files all are
    read."""
    demonstrations: Literal["labelers", "instructions"] = "labelers"
    """What the world writes to be imitated. `labelers`: answers with the faults of people's; `instructions`: a mixture
    of its tasks, answered without a fault (FLAN). Of files both are read, whichever there are."""
    mixture_cap: int = Field(default=3000, ge=1)
    """A task counts no more examples than this in a mixture's rates; 3000 is FLAN's."""
    num_examples: int = Field(default=2000, ge=2)
    """Texts with classes that the world writes for `[classify]`; of files all are read."""
    num_heldout_examples: int = Field(default=500, ge=1)
    """Texts with classes that the world writes to measure by."""
    compute: Compute = Compute()
    """Section `[compute]`."""
    world: WorldRecipe = WorldRecipe()
    """Section `[world]`."""
    files: FilesRecipe = FilesRecipe()
    """Section `[files]`."""
    data: DataRecipe = DataRecipe()
    """Section `[data]`."""
    tokenizer: TokenizerRecipe = TokenizerRecipe()
    """Section `[tokenizer]`."""
    model: ModelConfig = ModelConfig()
    """Section `[model]`."""
    pretrain: PretrainRecipe = PretrainRecipe()
    """Section `[pretrain]`."""
    supervise: SuperviseRecipe = SuperviseRecipe()
    """Section `[supervise]`."""
    adapter: AdapterRecipe = AdapterRecipe()
    """Section `[adapter]`."""
    distill: DistillRecipe = DistillRecipe()
    """Section `[distill]`; no part of the round."""
    classify: ClassifyRecipe = ClassifyRecipe()
    """Section `[classify]`; no part of the round."""
    label: LabelRecipe = LabelRecipe()
    """Section `[label]`."""
    reward: RewardRecipe = RewardRecipe()
    """Section `[reward]`: the reward model and the second judge."""
    ppo: PpoRecipe = PpoRecipe()
    """Section `[ppo]`."""
    group: GroupRecipe = GroupRecipe()
    """Section `[group]`; no part of the round."""
    expert_iteration: ExpertIterationRecipe = ExpertIterationRecipe()
    """Section `[expert_iteration]`; no part of the round."""
    direct: DirectRecipe = DirectRecipe()
    """Section `[direct]`; no part of the round."""
    reject: RejectRecipe = RejectRecipe()
    """Section `[reject]`; no part of the round."""
    self_judge: SelfJudgeRecipe = SelfJudgeRecipe()
    """Section `[self_judge]`; no part of the round."""
    evaluate: EvaluateRecipe = EvaluateRecipe()
    """Section `[evaluate]`."""
    gate: GateRecipe = GateRecipe()
    """Section `[gate]`."""

    @model_validator(mode="after")
    def _check_objective(self) -> Self:
        if problem := misfit(self.pretrain.objective, self.model):
            raise ValueError(problem)
        if self.pretrain.objective == "entity_masked" and self.material == "files" and not self.files.names:
            raise ValueError('pretrain.objective = "entity_masked" hides names whole, but files.names names no file')
        return self

    @model_validator(mode="after")
    def _check_material(self) -> Self:
        if self.material == "world":
            return self
        files = self.files
        # A classifier, instructions or another objective may be all that is wanted; else an assistant is.
        is_assistant = self.pretrain.objective == "causal" and not (files.labeled or files.instructions)
        for name in ("documents", "demonstrations", "preferences") if is_assistant else ("documents",):
            if not getattr(files, name):
                raise ValueError(f"material is files, but files.{name} names none")
        if not files.preferences:
            return self
        longest = self.reward.max_prompt_tokens + self.reward.max_response_tokens + 1
        if longest > self.model.max_positions:
            raise ValueError(
                f"reward.max_prompt_tokens, reward.max_response_tokens and the end mark make {longest} tokens, above "
                f"model.max_positions {self.model.max_positions}; lower the first two"
            )
        if self.ppo.max_new_tokens > self.reward.max_response_tokens:
            raise ValueError(
                f"ppo.max_new_tokens {self.ppo.max_new_tokens} exceeds reward.max_response_tokens "
                f"{self.reward.max_response_tokens}: the reward model has never read such answers; lower the first"
            )
        return self


def check_assistant(recipe: Recipe) -> None:
    """Refuse a recipe whose base model is no language model: nothing can be asked of it.

    Raises:
        RecipeError: so it is.
    """
    objective = recipe.pretrain.objective
    if objective != "causal":
        raise RecipeError(
            f'pretrain.objective = "{objective}" makes no assistant; run `sanbai train pretrain`, or choose "causal"'
        )
