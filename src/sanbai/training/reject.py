"""Rejection sampling: draw several answers to each prompt and keep the one that the reward model likes best.

The answers kept are demonstrations, to be imitated by `supervise`: one step of expert iteration, and beside PPO the
baseline that is hard to beat (Nakano et al. 2021, arXiv:2112.09332; Llama 2's, Touvron et al. 2023, arXiv:2307.09288).
What is gained by more answers, and where the reward model is only flattered, is measured on the same draws: the reward
of the best of 1, 2, 4, ... of them, by the reward model and by a second judge that did not choose.

Output: `demonstrations.jsonl.gz`. Metrics a step, of one chunk of prompts: `reward` of all answers, `best_reward` and
`judge_reward` of those kept, `kept_share` of the prompts, `finished` and `different` shares of the answers, `length`
and `best_length` in tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from sanbai.data.conversations import Conversation
from sanbai.data.prompts import Prompt
from sanbai.data.records import write_records
from sanbai.foundation.device import Compute
from sanbai.foundation.errors import DataError
from sanbai.foundation.recipe import RecipeSection
from sanbai.foundation.seeds import derive_seed
from sanbai.foundation.stage import Stage
from sanbai.generation.sampling import Sampling
from sanbai.model.heads import LanguageModel
from sanbai.objectives.best_of import best_of_kl_bound, best_of_value
from sanbai.text.chat_template import encode_prompt
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.candidates import Candidates, draw_candidates, score_different
from sanbai.training.rollouts import Score
from sanbai.training.supervise import SuperviseRecipe

#: Answers in one chunk: some seconds of work on a CPU, and what a killed run loses.
CHUNK_ANSWERS = 1024


class RejectRecipe(RecipeSection):
    """Section `[reject]`: rejection sampling."""

    num_prompts: int = Field(default=31_144, ge=1)
    """Prompts that are answered; InstructGPT practised on as many."""
    num_answers: int = Field(default=16, ge=2, le=1024)
    """n: answers to each, of which one is kept. Their KL to the policy is at most log n - (n - 1)/n nats."""
    max_new_tokens: int = Field(default=1024, ge=1)
    """Longest answer; one that is cut off here is never kept."""
    temperature: float = Field(default=1.0, gt=0.0, le=10.0)
    """Of the answers."""
    rollout_rows: int = Field(default=64, ge=1)
    """Answers drawn at once by a thread. Changes memory and speed, and nothing else but rounding."""
    supervise: SuperviseRecipe = SuperviseRecipe(num_epochs=1.0)
    """Section `[reject.supervise]`: how the answers that were kept are imitated."""


def num_reject_steps(recipe: RejectRecipe, num_prompts: int) -> int:
    """Return the chunks in which `keep_best` works through so many prompts."""
    return -(-num_prompts // _chunk_prompts(recipe))


def keep_best(
    stage: Stage,
    recipe: RejectRecipe,
    compute: Compute,
    *,
    policy: LanguageModel,
    reward: Score,
    judge: Score,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    max_prompt_tokens: int,
) -> dict[str, Any]:
    """Answer every prompt several times and write the best answers as demonstrations.

    Answers that the limit cut off are never kept, and a prompt with no other is left out.

    Args:
        stage: one step of its run is one chunk of prompts, `num_reject_steps` in all.
        recipe: section `[reject]`.
        compute: precision and device.
        policy: that answers; left as it is.
        reward: chooses; usually a `RewardModel`.
        judge: a second one, trained on other labelers; only measures.
        tokenizer: the policy's, and the reward models'.
        prompts: to be answered.
        max_prompt_tokens: longer ones lose their beginning before they are answered; what is written is the whole
            conversation.

    Returns:
        Demonstrations kept and the share of prompts with one; for n = 1, 2, 4, ... the mean reward of the best of n by
        either judge (`reward_by_num`, `judge_reward_by_num`) and the bound on its KL (`kl_bound_by_num`).

    Raises:
        DataError: no answer was finished.
        Interrupted: asked to stop; the answers so far are saved.
    """
    policy = policy.to(compute.device)
    encoded = [encode_prompt(tokenizer, prompt.messages, max_tokens=max_prompt_tokens) for prompt in prompts]
    sampling = Sampling(temperature=recipe.temperature, max_new_tokens=recipe.max_new_tokens)
    kept = _Kept()
    step = 0
    if (saved := stage.run.load()) is not None:
        step = saved[0]
        kept.load(saved[1])
    chunk = _chunk_prompts(recipe)
    while step * chunk < len(prompts):
        places = range(step * chunk, min((step + 1) * chunk, len(prompts)))
        candidates = draw_candidates(
            policy,
            [encoded[place] for place in places],
            reward,
            sampling,
            compute,
            tokenizer,
            num_candidates=recipe.num_answers,
            batch_size=recipe.rollout_rows,
            seed=derive_seed(stage.seed, "reject", step),
        )
        judged_PK = score_different(judge, candidates.rollouts).view(candidates.score_PK.shape)
        kept.add(candidates, judged_PK, first=places[0])
        step += 1
        stage.run.record(step, **describe(candidates, judged_PK))
        stage.run.save(step, kept.tensors(), {})
        stage.run.raise_if_stopping()

    if not kept.answers:
        raise DataError(
            f"none of {len(prompts) * recipe.num_answers} answers ended before {recipe.max_new_tokens} tokens; "
            "raise reject.max_new_tokens"
        )
    write_records(
        stage.folder / "demonstrations.jsonl.gz",
        (_demonstration(prompts[place], tokenizer.decode(tokens)) for place, tokens in kept.answers),
    )
    return {
        "demonstrations": len(kept.answers),
        "kept_share": len(kept.answers) / len(prompts),
        **curve(torch.cat(kept.scores), torch.cat(kept.judged)),
    }


def describe(candidates: Candidates, judged_PK: Tensor) -> dict[str, float]:
    """Return a chunk's numbers; see the module."""
    rows = candidates.best_rows()
    responses = candidates.rollouts.responses
    num_answers, num_prompts = len(responses), len(candidates.score_PK)
    pairs = zip(map(tuple, candidates.rollouts.prompts), map(tuple, responses), strict=True)
    numbers = {
        "reward": candidates.score_PK.mean().item(),
        "kept_share": len(rows) / num_prompts,
        "finished": candidates.finished().float().mean().item(),
        "different": len(set(pairs)) / num_answers,
        "length": sum(map(len, responses)) / num_answers,
    }
    if rows:
        numbers |= {
            "best_reward": candidates.score_PK.flatten()[rows].mean().item(),
            "judge_reward": judged_PK.flatten()[rows].mean().item(),
            "best_length": sum(len(responses[row]) for row in rows) / len(rows),
        }
    return numbers


def curve(score_PK: Tensor, judged_PK: Tensor) -> dict[str, dict[str, float]]:
    """Return what the best of n answers is worth by either judge, and the bound on its KL, for n = 1, 2, 4, ... K.

    Answers count whether they were finished or not. Where the reward goes on rising and the second judge's does not,
    more answers only please the first.

    Args:
        score_PK: by the judge that chooses.
        judged_PK: by the one that does not.
    """
    num_candidates = score_PK.shape[1]
    nums = sorted({*(2**power for power in range(num_candidates.bit_length())), num_candidates})
    return {
        "reward_by_num": {str(num): best_of_value(score_PK, score_PK, num=num).mean().item() for num in nums},
        "judge_reward_by_num": {str(num): best_of_value(score_PK, judged_PK, num=num).mean().item() for num in nums},
        "kl_bound_by_num": {str(num): best_of_kl_bound(num) for num in nums},
    }


class _Kept:
    """What a run keeps of its chunks: the best answers with their prompts' places, and all scores."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, list[int]]] = []
        self.scores: list[Tensor] = []
        self.judged: list[Tensor] = []

    def add(self, candidates: Candidates, judged_PK: Tensor, *, first: int) -> None:
        """Take over a chunk whose first prompt has the place `first`."""
        num_candidates = candidates.score_PK.shape[1]
        self.answers += [
            (first + row // num_candidates, candidates.rollouts.completions[row].tokens)
            for row in candidates.best_rows()
        ]
        self.scores.append(candidates.score_PK)
        self.judged.append(judged_PK)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything as tensors."""
        return {
            "places": torch.tensor([place for place, _ in self.answers], dtype=torch.int64),
            "lengths": torch.tensor([len(tokens) for _, tokens in self.answers], dtype=torch.int64),
            "tokens": torch.tensor([token for _, tokens in self.answers for token in tokens], dtype=torch.int32),
            "scores": torch.cat(self.scores),
            "judged": torch.cat(self.judged),
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `tensors` gave."""
        answers = torch.split(tensors["tokens"], tensors["lengths"].tolist())
        self.answers = [
            (place, answer.tolist()) for place, answer in zip(tensors["places"].tolist(), answers, strict=True)
        ]
        self.scores, self.judged = [tensors["scores"]], [tensors["judged"]]


def _chunk_prompts(recipe: RejectRecipe) -> int:
    return max(1, CHUNK_ANSWERS // recipe.num_answers)


def _demonstration(prompt: Prompt, answer: str) -> Conversation:
    """Return the conversation with its answer; the tokens may be others when it is encoded, the text is the same."""
    return Conversation(prompt.id, (*prompt.messages, {"role": "assistant", "content": answer}), "rejection sampling")
