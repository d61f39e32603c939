"""The reward model in use: rows to scores, with the record of its zero.

Rankings fix only differences of rewards. The zero is set afterwards, so that demonstrations average 0 (Ouyang et al.
2022, section 3.5), and written down in `calibration.json`; a model without that record is not a reward model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from sanbai.foundation.device import Compute, autocast
from sanbai.foundation.errors import DataError, ModelError
from sanbai.foundation.files import read_json, write_json_atomic
from sanbai.foundation.parallel import map_parts
from sanbai.model.heads import ScalarModel
from sanbai.model.hugging_face import load_scalar_model
from sanbai.text.chat_markup import Message
from sanbai.text.chat_template import encode_prompt
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.sequences import group_by_tokens, pack_sequences
from sanbai.training.trees import Tree, pack_trees

CALIBRATION = "calibration.json"

#: Tokens computed at once without gradients.
SCORING_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Calibration:
    """Where a reward model's zero comes from.

    Attributes:
        num_demonstrations: answers it was measured on.
        mean_before: their mean reward as trained.
        mean_after: the same with the bias shifted; 0 up to float32.
        deviation: their standard deviation, the natural unit of this model's rewards.
    """

    num_demonstrations: int
    mean_before: float
    mean_after: float
    deviation: float


class RewardModel:
    """A calibrated scalar model, read at the last token of prompt and response."""

    def __init__(self, model: ScalarModel, calibration: Calibration, compute: Compute) -> None:
        self.model = model.to(compute.device)
        self.calibration = calibration
        self._compute = compute

    def __call__(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        """Return one reward a response; both as token ids."""
        rows = [[*prompt, *response] for prompt, response in zip(prompts, responses, strict=True)]
        return score_rows(self.model, rows, self._compute)

    def score_answers(self, tokenizer: Tokenizer, answers: Sequence[tuple[Sequence[Message], str]]) -> list[float]:
        """Return one reward for each (messages, answer), both as text."""
        return score_rows(self.model, [encode_answer(tokenizer, *answer) for answer in answers], self._compute)

    def read_answers(self, tokenizer: Tokenizer, asked: Sequence[tuple[Sequence[Message], Sequence[str]]]) -> Tensor:
        """Return vectors_ND, what the head reads at the end of each answer, prompt by prompt."""
        trees = [
            Tree(
                tuple(encode_prompt(tokenizer, messages)),
                tuple((*tokenizer.encode(answer), tokenizer.reserved.end) for answer in answers),
            )
            for messages, answers in asked
        ]
        return last_vectors(self.model, trees, self._compute)


def encode_answer(
    tokenizer: Tokenizer, messages: Sequence[Message], answer: str, *, max_prompt_tokens: int | None = None
) -> list[int]:
    """Return prompt, answer and `<|end|>` as one row: what reward models are trained on and asked about."""
    prompt = encode_prompt(tokenizer, messages, max_tokens=max_prompt_tokens)
    return [*prompt, *tokenizer.encode(answer), tokenizer.reserved.end]


@torch.no_grad()
def score_rows(model: ScalarModel, rows: Sequence[Sequence[int]], compute: Compute) -> list[float]:
    """Return the model's value at each row's last token.

    Args:
        model: on the device of `compute`.
        rows: token ids, at least one each.
        compute: precision of the matrix products; the head is float32.
    """
    device = model.head.weight.device

    def score_group(group: Sequence[int]) -> list[float]:
        packed = pack_sequences([rows[index] for index in group], context=model.config.max_positions, device=device)
        with autocast(compute):
            value_BT = model(packed.tokens_BT, segments_BT=packed.segments_BT)
        scores: list[float] = value_BT.flatten()[packed.last()].tolist()
        return scores

    groups = group_by_tokens([len(row) for row in rows], max_tokens=SCORING_TOKENS)
    return [score for scores in map_parts(score_group, groups) for score in scores]


@torch.no_grad()
def last_vectors(model: ScalarModel, trees: Sequence[Tree], compute: Compute) -> Tensor:
    """Return vectors_ND in float32: what the head reads at the end of each answer, trees and answers in their order.

    Args:
        model: on the device of `compute`.
        trees: prompts with their answers, each prompt read once.
        compute: precision of the matrix products.
    """
    device = model.head.weight.device

    def read_group(group: Sequence[int]) -> Tensor:
        packed = pack_trees([trees[index] for index in group], context=model.config.max_positions, device=device)
        with autocast(compute):
            hidden_BTD = model.trunk(
                packed.tokens_BT,
                positions_BT=packed.positions_BT,
                segments_BT=packed.segments_BT,
                branches_BT=packed.branches_BT,
            )
        vectors_ND: Tensor = hidden_BTD.flatten(0, 1)[packed.last_N].float()
        return vectors_ND

    groups = group_by_tokens([tree.num_tokens for tree in trees], max_tokens=SCORING_TOKENS)
    return torch.cat(map_parts(read_group, groups))


def calibrate(model: ScalarModel, demonstrations: Sequence[Sequence[int]], compute: Compute) -> Calibration:
    """Shift the head's bias, in place, so that the demonstrations' mean reward is 0.

    Args:
        model: trained.
        demonstrations: rows as `encode_answer` gives them.
        compute: as the model will be used.

    Raises:
        DataError: there is no demonstration.
    """
    if not demonstrations:
        raise DataError("no demonstration to set the reward model's zero by; give at least one")
    before_N = torch.tensor(score_rows(model, demonstrations, compute), dtype=torch.float64)
    with torch.no_grad():
        model.head.bias.sub_(before_N.mean().float())
    after_N = torch.tensor(score_rows(model, demonstrations, compute), dtype=torch.float64)
    return Calibration(
        num_demonstrations=len(demonstrations),
        mean_before=before_N.mean().item(),
        mean_after=after_N.mean().item(),
        deviation=after_N.std(correction=0).item(),
    )


def save_calibration(folder: Path, calibration: Calibration) -> None:
    """Write the record beside the model's files."""
    write_json_atomic(folder / CALIBRATION, asdict(calibration))


def load_reward_model(folder: Path, compute: Compute) -> RewardModel:
    """Read a reward model.

    Raises:
        ModelError: not a scalar model, or without the record of its zero.
    """
    calibration = load_calibration(folder)
    return RewardModel(load_scalar_model(folder), calibration, compute)


def load_calibration(folder: Path) -> Calibration:
    """Read the record of a reward model's zero.

    Raises:
        ModelError: there is none.
    """
    if not (folder / CALIBRATION).is_file():
        raise ModelError(f"{folder}: no {CALIBRATION}, so its zero was never set to demonstrations; train it anew")
    try:
        return Calibration(**read_json(folder / CALIBRATION))
    except (TypeError, DataError) as error:
        raise ModelError(f"{folder / CALIBRATION}: not a calibration record: {error}") from None
