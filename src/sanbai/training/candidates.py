"""Several scored answers of a policy to each prompt: for the best of n, and for whatever compares them with each other.

Shapes: P prompts, K candidates a prompt, N = P·K rows; the candidates of prompt p are the rows p·K to p·K + K - 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sanbai.foundation.device import Compute
from sanbai.foundation.seeds import derive_seed
from sanbai.generation.answering import Completion, generate
from sanbai.generation.precision import decoding_precision
from sanbai.generation.sampling import Sampling
from sanbai.model.heads import LanguageModel
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.rollouts import Rollouts, Score


@dataclass(frozen=True, slots=True)
class Candidates:
    """Answers and their scores.

    Attributes:
        rollouts: N rows, the prompts repeated.
        score_PK: the judge's numbers, before any penalty.
    """

    rollouts: Rollouts
    score_PK: Tensor

    def finished(self) -> Tensor:
        """Return finished_PK, true where the policy ended the answer itself and the limit did not."""
        finished = [completion.finish_reason == "stop" for completion in self.rollouts.completions]
        return torch.tensor(finished).view(self.score_PK.shape)

    def best_rows(self) -> list[int]:
        """Return the row of each prompt's best finished answer, the first among equals; none for a prompt without."""
        num_candidates = self.score_PK.shape[1]
        score_N, finished_N = self.score_PK.flatten().tolist(), self.finished().flatten().tolist()
        candidates = [range(start, start + num_candidates) for start in range(0, len(score_N), num_candidates)]
        eligible = [[row for row in rows if finished_N[row]] for rows in candidates]
        return [max(rows, key=score_N.__getitem__) for rows in eligible if rows]


def draw_candidates(
    policy: LanguageModel,
    prompts: Sequence[Sequence[int]],
    score: Score,
    sampling: Sampling,
    compute: Compute,
    tokenizer: Tokenizer,
    *,
    num_candidates: int,
    batch_size: int,
    seed: int,
) -> Candidates:
    """Answer each prompt `num_candidates` times and score each different answer once.

    A prompt is read once for all its answers.

    Args:
        policy: left as it is.
        prompts: token ids.
        score: usually a `RewardModel`; see `score_different`.
        sampling: the rule; warped sampling is another distribution than the policy's, so practice leaves it off.
        compute: in bfloat16 the sampler's weights are cast too.
        tokenizer: knows what ends an answer.
        num_candidates: K, at least 1.
        batch_size: answers sampled at once; changes memory and speed, and nothing else but rounding.
        seed: of this sampling; an answer depends on it, the prompt's place and the candidate's number.
    """
    places = [(place, number) for place in range(len(prompts)) for number in range(num_candidates)]
    repeated = [prompts[place] for place, _ in places]
    completions = generate(
        policy,
        repeated,
        sampling,
        seeds=[derive_seed(seed, place, number) for place, number in places],
        stop_ids=tokenizer.reserved.ends(),
        batch_size=batch_size,
        precision=decoding_precision(compute),
    )
    rollouts = Rollouts(repeated, completions)
    score_N = score_different(score, rollouts)
    return Candidates(rollouts, score_N.view(len(prompts), num_candidates))


def best_answer(
    policy: LanguageModel,
    prompt: Sequence[int],
    score: Score,
    sampling: Sampling,
    compute: Compute,
    tokenizer: Tokenizer,
    *,
    num_candidates: int,
    seed: int,
) -> tuple[Completion, float]:
    """Return the best of several answers to one prompt, and its score; a cut one only where no other was drawn.

    Arguments as `draw_candidates` has them.
    """
    drawn = draw_candidates(
        policy,
        [prompt],
        score,
        sampling,
        compute,
        tokenizer,
        num_candidates=num_candidates,
        batch_size=num_candidates,
        seed=seed,
    )
    score_K = drawn.score_PK[0].tolist()
    (best,) = drawn.best_rows() or [score_K.index(max(score_K))]
    return drawn.rollouts.completions[best], score_K[best]


def score_different(score: Score, rollouts: Rollouts) -> Tensor:
    """Return score_N, each different answer to a prompt asked about once: equal answers score alike, to the bit.

    Args:
        score: asked once, with all different answers.
        rollouts: prompts and answers, any of them repeated.
    """
    rows = [(tuple(prompt), tuple(answer)) for prompt, answer in zip(rollouts.prompts, rollouts.responses, strict=True)]
    different = list(dict.fromkeys(rows))
    scores = score([prompt for prompt, _ in different], [answer for _, answer in different])
    score_of = dict(zip(different, scores, strict=True))
    return torch.tensor([score_of[row] for row in rows])
