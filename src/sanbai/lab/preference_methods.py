"""Ways to learn from one and the same rankings, side by side.

PPO-ptx (Ouyang et al. 2022) beside best of n and rejection sampling (Nakano et al. 2021), expert iteration, DPO, IPO,
SimPO and KTO, GRPO, Dr. GRPO and RLOO; each starts from the same supervised model. Whatever practises uses the same
reward model, second judge, rate, pretraining rows and number of sampled answers as PPO; what learns from rankings reads
all of them once. Methods move different distances for that, so the KL stands beside the gain, and the seconds that each
stage took; the table says which is ahead where, and claims nothing beforehand. The supervised model is the control.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from sanbai.evaluation.answers import ScoredAnswer, answer_prompts
from sanbai.evaluation.compare import win_rate
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.seeds import derive_seed
from sanbai.lab.alignment_tax import rise
from sanbai.lab.assistants import Assistants, mean_of
from sanbai.lab.trials import Phenomenon
from sanbai.objectives.best_of import best_of_kl_bound
from sanbai.training.practice import PracticeRecipe
from sanbai.world.labelers import judged

#: Answers to a prompt where several are compared.
NUM_ANSWERS = 8
#: Of what learns from rankings: between practice's and the reward model's; not searched for.
DIRECT_RATE = 2e-4
#: β of each loss: nats for DPO, IPO and KTO, a scale of mean log-probabilities for SimPO.
DIRECT: dict[str, dict[str, Any]] = {
    "DPO": {"method": "dpo", "beta": 0.1},
    "IPO": {"method": "ipo", "beta": 0.1},
    "SimPO": {"method": "simpo", "beta": 2.0, "margin": 1.0},
    "KTO": {"method": "kto", "beta": 0.1},
}
#: As published, but that Dr. GRPO keeps a price on KL.
GROUP: dict[str, dict[str, Any]] = {
    "GRPO": {"advantage": "grpo", "normalization": "response", "surrogate": "clipped", "kl_in": "k3_loss"},
    "Dr. GRPO": {"advantage": "dr_grpo", "normalization": "constant", "surrogate": "clipped", "kl_in": "reward"},
    "RLOO": {"advantage": "rloo", "normalization": "sum", "surrogate": "reinforce", "kl_in": "reward"},
}
BEST_OF = f"best of {NUM_ANSWERS}"


def shared_fields(assistants: Assistants) -> dict[str, Any]:
    """Return PPO's fields that every way of practising has, the answers of an iteration spread over fewer prompts."""
    recipe = assistants.recipe.ppo
    fields = {name: getattr(recipe, name) for name in PracticeRecipe.model_fields}
    return {
        **fields,
        "num_answers": NUM_ANSWERS,
        "batch_prompts": max(1, recipe.batch_prompts // NUM_ANSWERS),
        "minibatch_prompts": max(1, recipe.minibatch_prompts // NUM_ANSWERS),
    }


def ppo(assistants: Assistants) -> Artifact:
    """The recipe's policy."""
    return assistants.policy


def direct(changes: Mapping[str, Any]) -> Callable[[Assistants], Artifact]:
    """Return the maker of a policy that learns from the rankings themselves."""

    def make(assistants: Assistants) -> Artifact:
        reward, labels = assistants.recipe.reward, assistants.labels
        pipeline = assistants.pipeline(
            direct={
                "learning_rate": DIRECT_RATE,
                "warmup_steps": 10,
                **{
                    name: getattr(reward, name)
                    for name in ("batch_prompts", "micro_batch_tokens", "max_prompt_tokens", "max_response_tokens")
                },
                **changes,
            }
        )
        return pipeline.direct(assistants.ancestry.supervised, {"snapshot": labels.snapshot}, labels.by_use.training)

    return make


def group(changes: Mapping[str, Any]) -> Callable[[Assistants], Artifact]:
    """Return the maker of a policy whose answers are judged by each other."""

    def make(assistants: Assistants) -> Artifact:
        ancestry, judges = assistants.ancestry, assistants.judges
        price = {"kl_coef": assistants.recipe.ppo.kl_coef} if changes["kl_in"] == "reward" else {}
        pipeline = assistants.pipeline(group={**shared_fields(assistants), **changes, **price})
        return pipeline.practised("group", ancestry.supervised, judges.reward, judges.judge, ancestry.shards, round=1)

    return make


def expert_iteration(assistants: Assistants) -> Artifact:
    """Imitates its own best answers, iteration after iteration."""
    ancestry, judges = assistants.ancestry, assistants.judges
    pipeline = assistants.pipeline(expert_iteration=shared_fields(assistants))
    return pipeline.practised(
        "expert_iteration", ancestry.supervised, judges.reward, judges.judge, ancestry.shards, round=1
    )


def rejection(assistants: Assistants) -> Artifact:
    """Imitates the best of the supervised model's answers, once."""
    recipe, ancestry, judges = assistants.recipe, assistants.ancestry, assistants.judges
    pipeline = assistants.pipeline(
        reject={
            "num_prompts": max(1, recipe.ppo.num_iterations * recipe.ppo.batch_prompts // NUM_ANSWERS),
            "num_answers": NUM_ANSWERS,
            "max_new_tokens": recipe.ppo.max_new_tokens,
            "supervise": recipe.supervise.model_copy(update={"num_epochs": 1.0}),
        }
    )
    best = pipeline.best_answers(ancestry.supervised, judges.reward, judges.judge)
    return pipeline.rejected(ancestry.supervised, ancestry.shards, best)


METHODS: dict[str, Callable[[Assistants], Artifact]] = {
    "PPO-ptx": ppo,
    **{name: group(changes) for name, changes in GROUP.items()},
    "expert iteration": expert_iteration,
    "rejection sampling": rejection,
    **{name: direct(changes) for name, changes in DIRECT.items()},
}


def measure(assistants: Assistants) -> dict[str, float]:
    """Make every policy and return its figures."""
    start = assistants.ancestry.supervised
    supervised = assistants.measured("model", start)
    figures = figures_of("supervised", supervised.answers)
    for name, make in METHODS.items():
        model = make(assistants)
        found = assistants.measured("model", model)
        figures |= {
            **figures_of(name, found.answers),
            f"win rate over supervised, {name}": win_rate(found.answers, supervised.answers, seed=0, draws=200).mean,
            f"KL, {name}": assistants.kl(model, found),
            f"rise in bits, {name}": rise(found.figures["bits_per_byte"], supervised.figures["bits_per_byte"]),
            f"seconds, {name}": float(model.manifest["seconds"]),
        }
    best = best_answers(assistants, start)
    return {
        **figures,
        **figures_of(BEST_OF, best),
        f"win rate over supervised, {BEST_OF}": win_rate(best, supervised.answers, seed=0, draws=200).mean,
        f"KL, {BEST_OF}": best_of_kl_bound(NUM_ANSWERS),
    }


def figures_of(name: str, answers: Sequence[ScoredAnswer]) -> dict[str, float]:
    """Return a model's means over its answers, and how different these are from each other."""
    axes = {axis: mean_of(answers, axis) for axis in ("helpful", "honest", "harmless")}
    return {
        f"gold utility, {name}": mean_of(answers, "gold_utility"),
        **{f"{axis}, {name}": mean for axis, mean in axes.items()},
        f"words, {name}": mean_of(answers, "length"),
        f"different bigrams, {name}": different_bigrams([answer.answer for answer in answers]),
    }


def different_bigrams(texts: Sequence[str]) -> float:
    """Return the share of different pairs of neighbouring words among all pairs (Li et al. 2016, arXiv:1510.03055)."""
    pairs = [pair for text in texts for pair in pairwise(text.split())]
    return len(set(pairs)) / len(pairs) if pairs else 0.0


def best_answers(assistants: Assistants, model: Artifact) -> list[ScoredAnswer]:
    """Return to each held-out prompt that of several answers which the reward model likes best."""
    prompts = assistants.heldout_prompts()
    recipe = assistants.recipe.evaluate
    answers = answer_prompts(
        assistants.contestant(model),
        prompts,
        judged,
        sampling=recipe.sampling,
        seed=derive_seed(assistants.recipe.seed, "best of n"),
        batch_size=recipe.batch_size,
        num_samples=NUM_ANSWERS,
    )
    messages = {prompt.id: prompt.messages for prompt in prompts}
    rewards = assistants.reward_model(assistants.judges.reward).score_answers(
        assistants.tokenizer, [(messages[answer.prompt], answer.answer) for answer in answers]
    )
    best: dict[str, tuple[float, ScoredAnswer]] = {}
    for reward, answer in zip(rewards, answers, strict=True):
        if reward > best.get(answer.prompt, (-math.inf, answer))[0]:
            best[answer.prompt] = (reward, answer)
    return [replace(answer, sample=0) for _, answer in best.values()]  # one a prompt, as the other models'


PREFERENCE_METHODS = Phenomenon[Assistants](
    name="preference_methods",
    claim="Ways to learn from the same rankings: gain, distance, tax and seconds of each; nothing is claimed.",
    measure=measure,
    effect=(
        *(f"gold utility, {name}" for name in (*METHODS, BEST_OF)),
        *(f"win rate over supervised, {name}" for name in (*METHODS, BEST_OF)),
        *(f"KL, {name}" for name in (*METHODS, BEST_OF)),
        *(f"rise in bits, {name}" for name in METHODS),
        *(f"different bigrams, {name}" for name in (*METHODS, BEST_OF)),
        *(f"words, {name}" for name in (*METHODS, BEST_OF)),
        *(f"seconds, {name}" for name in METHODS),
    ),
    control=("gold utility, supervised", "different bigrams, supervised", "words, supervised"),
    units={
        **{f"KL, {name}": "nats a response" for name in (*METHODS, BEST_OF)},
        **{f"rise in bits, {name}": "percent more bits per byte than supervised" for name in METHODS},
        **{f"words, {name}": "words" for name in (*METHODS, BEST_OF, "supervised")},
        **{f"seconds, {name}": "seconds" for name in METHODS},
    },
)
