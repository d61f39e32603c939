"""How far a reward model can be followed: its score and gold utility against the distance from the supervised model.

Published (Gao et al. 2022, arXiv:2210.10760): the proxy goes on rising with √KL while gold utility turns, for PPO and
for best-of-n alike. PPO runs here without its brake and with its β at zero; the world's oracle stands where the second
judge stands, so that each reading is (√KL, proxy, gold) on the same held-out prompts. Best-of-n is drawn from the
supervised model; its KL is at most log n - (n - 1)/n. `recollected_rankings` closes the loop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sanbai.data.shards import ShardReader
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.run import read_metrics
from sanbai.foundation.seeds import derive_seed
from sanbai.foundation.stage import Stage, run_stage
from sanbai.generation.sampling import Sampling
from sanbai.lab.assistants import Assistants
from sanbai.lab.trials import Phenomenon
from sanbai.model.hugging_face import load_language_model
from sanbai.objectives.best_of import best_of_kl_bound, best_of_value
from sanbai.rounds.stages.stage_runner import MODULES
from sanbai.text.chat_template import encode_prompt
from sanbai.training.candidates import draw_candidates, score_different
from sanbai.training.ppo import train_ppo
from sanbai.training.rollouts import Score
from sanbai.world.labelers import judged

#: Times the recipe's iterations, for practice that nothing stops.
LONGER = 4
NUM_READINGS = 12
NUM_WATCHED = 256
#: Answers drawn to each watched prompt, and the n of best-of-n.
NUM_CANDIDATES = 64
BEST_OF = (1, 2, 4, 8, 16, 32, 64)


def measure(assistants: Assistants) -> dict[str, float]:
    """Practise without a brake, draw candidates, and return both curves."""
    figures = {**practised_curve(assistants), **best_of_n_curve(assistants)}
    for way in ("PPO", "best of n"):
        gold = [value for name, value in figures.items() if name.startswith(f"{way} gold")]
        proxy = [value for name, value in figures.items() if name.startswith(f"{way} proxy")]
        figures[f"{way}, gold utility gained at its best"] = max(gold) - gold[0]
        figures[f"{way}, gold utility lost after its best"] = max(gold) - gold[-1]
        figures[f"{way}, proxy gained at the end"] = proxy[-1] - proxy[0]
    return figures


def practised_curve(assistants: Assistants) -> dict[str, float]:
    """Return √KL, proxy and gold of each reading of a practice without brake and β."""
    policy = unbraked(assistants)
    rows = [row for row in read_metrics(assistants.job.workspace.runs / policy.name) if "judged_kl" in row]
    return {
        f"PPO {name} {int(row['step']):04d}": value
        for row in rows
        for name, value in (
            ("√KL", math.sqrt(max(0.0, row["judged_kl"]))),
            ("proxy", row["judged_reward"]),
            ("gold", row["judge_reward"]),
        )
    }


def unbraked(assistants: Assistants) -> Artifact:
    """Practise against the reward model alone, watched by the oracle."""
    recipe = assistants.recipe.ppo
    num_iterations = LONGER * recipe.num_iterations
    changed = recipe.model_copy(
        update={
            "num_iterations": num_iterations,
            "kl_coef": 0.0,
            "ptx_coef": 0.0,
            "keep": "last",
            "kl_budget": 1e9,
            "patience": NUM_READINGS + 1,
            "judge_iterations": max(1, num_iterations // NUM_READINGS),
        }
    )
    ancestry, judges, compute = assistants.ancestry, assistants.judges, assistants.recipe.compute

    def build(stage: Stage) -> Mapping[str, Any]:
        reward = assistants.reward_model(judges.reward)
        return train_ppo(
            stage,
            changed,
            compute,
            policy=load_language_model(ancestry.supervised.path),
            value=assistants.reward_model(judges.reward).model,
            reward=reward,
            judge=gold_score(assistants),
            tokenizer=assistants.tokenizer,
            prompts=encoded(assistants, "practise", num_iterations * recipe.batch_prompts),
            judge_prompts=encoded(assistants, "watch", NUM_WATCHED),
            pretraining=ShardReader(ancestry.shards, "train"),
        )

    return run_stage(
        assistants.job,
        kind="model",
        name="ppo without brake",
        recipe={"ppo": changed, "compute": compute, "world": assistants.recipe.world},
        parents={"start": ancestry.supervised, "reward": judges.reward, "shards": ancestry.shards},
        seed=assistants.recipe.seed,
        floor="training",
        num_steps=num_iterations,
        build=build,
        modules=(*MODULES, "lab/over_optimisation.py"),
    )


def gold_score(assistants: Assistants) -> Score:
    """Return the oracle in the place of a reward model: it knows the watched prompts by their tokens."""
    watched = assistants.material.judged_prompts("watch", NUM_WATCHED)
    by_tokens = {
        tuple(tokens): prompt for tokens, prompt in zip(encoded(assistants, "watch", NUM_WATCHED), watched, strict=True)
    }

    def score(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        return [
            judged(by_tokens[tuple(prompt)], text_of(assistants, response)).gold_utility
            for prompt, response in zip(prompts, responses, strict=True)
        ]

    return score


def best_of_n_curve(assistants: Assistants) -> dict[str, float]:
    """Return √KL, proxy and gold of the best of n answers by the reward model, for each n."""
    recipe, compute = assistants.recipe, assistants.recipe.compute
    drawn = draw_candidates(
        load_language_model(assistants.ancestry.supervised.path),
        encoded(assistants, "watch", NUM_WATCHED),
        assistants.reward_model(assistants.judges.reward),
        Sampling(temperature=recipe.ppo.temperature, max_new_tokens=recipe.ppo.max_new_tokens),
        compute,
        assistants.tokenizer,
        num_candidates=NUM_CANDIDATES,
        batch_size=recipe.label.batch_size,
        seed=derive_seed(recipe.seed, "candidates"),
    )
    gold_PK = score_different(gold_score(assistants), drawn.rollouts).view_as(drawn.score_PK)
    figures: dict[str, float] = {}
    for n in BEST_OF:
        figures[f"best of n √KL {n:04d}"] = math.sqrt(best_of_kl_bound(n))
        for name, value_PK in (("proxy", drawn.score_PK), ("gold", gold_PK)):
            figures[f"best of n {name} {n:04d}"] = best_of_value(drawn.score_PK, value_PK, num=n).mean().item()
    return figures


def encoded(assistants: Assistants, purpose: Any, num: int) -> list[list[int]]:
    """Return prompts for a purpose as tokens, cut like practice's."""
    recipe = assistants.recipe
    room = min(recipe.model.max_positions - recipe.ppo.max_new_tokens, recipe.reward.max_prompt_tokens)
    return [
        encode_prompt(assistants.tokenizer, prompt.messages, max_tokens=room)
        for prompt in assistants.material.prompts(purpose, num)
    ]


def text_of(assistants: Assistants, response: Sequence[int]) -> str:
    """Return a response as the oracle reads it."""
    ends = assistants.tokenizer.reserved.ends()
    return assistants.tokenizer.decode([token for token in response if token not in ends]).strip()


OVER_OPTIMISATION = Phenomenon[Assistants](
    name="over_optimisation",
    claim="A proxy goes on rising with the square root of KL while gold utility turns (arXiv:2210.10760).",
    measure=measure,
    effect=tuple(
        f"{way}, {figure}"
        for way in ("PPO", "best of n")
        for figure in ("proxy gained at the end", "gold utility lost after its best")
    ),
    control=tuple(f"{way}, gold utility gained at its best" for way in ("PPO", "best of n")),
    units={f"{way}, proxy gained at the end": "reward" for way in ("PPO", "best of n")},
    lines={
        unit: {way: (f"{way} √KL", f"{way} {figure}") for way in ("PPO", "best of n")}
        for unit, figure in (("gold utility", "gold"), ("reward", "proxy"))
    },
    along="√KL to the supervised model",
)
