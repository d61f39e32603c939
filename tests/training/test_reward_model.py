from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sanbai.data.conversations import Conversation
from sanbai.foundation.device import Compute
from sanbai.foundation.errors import DataError, ModelError
from sanbai.foundation.seeds import torch_generator
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.model.hugging_face import save_model
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.reward_model import (
    RewardModel,
    calibrate,
    encode_answer,
    load_reward_model,
    save_calibration,
    score_rows,
)

ROWS = [[5, 9, 200, 17], [5], [8, 8, 8, 8, 8, 8, 8], [40] * 30]


@pytest.fixture
def scalar(model: LanguageModel) -> ScalarModel:
    return ScalarModel.from_language_model(model, torch_generator(1, "head"))


def test_trap_20_a_row_is_read_at_its_last_token_alone_or_among_others(scalar: ScalarModel, compute: Compute) -> None:
    expected = [scalar(torch.tensor([row]))[0, -1].item() for row in ROWS]
    assert score_rows(scalar, ROWS, compute) == pytest.approx(expected, abs=1e-5)
    assert score_rows(scalar, ROWS[::-1], compute) == pytest.approx(expected[::-1], abs=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_trap_19_after_calibration_demonstrations_average_zero(
    scalar: ScalarModel, precision: str, tokenizer: Tokenizer, demonstrations: list[Conversation]
) -> None:
    compute = Compute.model_validate({"num_threads": 1, "precision": precision})
    rows = [encode_answer(tokenizer, each.messages[:-1], each.messages[-1]["content"]) for each in demonstrations]
    with torch.no_grad():
        scalar.head.bias.fill_(3.0)
    before = score_rows(scalar, rows, compute)
    calibration = calibrate(scalar, rows, compute)
    after = score_rows(scalar, rows, compute)
    assert abs(sum(after) / len(after)) < 1e-6
    assert abs(calibration.mean_after) < 1e-6
    assert calibration.mean_before == pytest.approx(sum(before) / len(before), rel=1e-6)
    shifts = [old - new for old, new in zip(before, after, strict=True)]
    assert shifts == pytest.approx([calibration.mean_before] * len(rows), abs=1e-5)  # one constant for all


def test_trap_19_a_model_without_calibration_record_is_refused(
    scalar: ScalarModel, tmp_path: Path, compute: Compute, tokenizer: Tokenizer
) -> None:
    save_model(scalar, tmp_path, tokenizer)
    with pytest.raises(ModelError, match=r"no calibration\.json"):
        load_reward_model(tmp_path, compute)
    (tmp_path / "calibration.json").write_text('{"num_demonstrations": 3}')
    with pytest.raises(ModelError, match="not a calibration record"):
        load_reward_model(tmp_path, compute)


def test_a_saved_reward_model_scores_as_before(
    scalar: ScalarModel, tmp_path: Path, compute: Compute, tokenizer: Tokenizer
) -> None:
    calibration = calibrate(scalar, ROWS, compute)
    save_model(scalar, tmp_path, tokenizer)
    save_calibration(tmp_path, calibration)
    loaded = load_reward_model(tmp_path, compute)
    assert loaded.calibration == calibration
    prompts, responses = [[5, 9], [8]], [[200], [8, 8]]
    assert loaded(prompts, responses) == RewardModel(scalar, calibration, compute)(prompts, responses)


def test_trap_27_an_answer_given_as_text_scores_as_its_tokens(
    scalar: ScalarModel, compute: Compute, tokenizer: Tokenizer
) -> None:
    messages = [{"role": "user", "content": "What is Anna?"}]
    row = encode_answer(tokenizer, messages, "Anna is a baker.")
    reward = RewardModel(scalar, calibrate(scalar, ROWS, compute), compute)
    assert row[-1] == tokenizer.reserved.end
    assert reward.score_answers(tokenizer, [(messages, "Anna is a baker.")]) == reward([row[:5]], [row[5:]])


def test_calibration_without_a_demonstration_is_refused(scalar: ScalarModel, compute: Compute) -> None:
    with pytest.raises(DataError, match="no demonstration"):
        calibrate(scalar, [], compute)
