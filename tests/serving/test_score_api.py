from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import torch
from tests.serving.conftest import CONFIG, Site, finish_artifact, running_site

from sanbai.feedback.registry import RegisteredModel, add_model
from sanbai.foundation.device import Compute
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.model.hugging_face import save_model
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.reward_model import Calibration, RewardModel, encode_answer, save_calibration

ASKED: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who bakes bread?"}]
ANSWERS = ["Anna does.", "", "12 + 30 = 42 村里"]


def add_reward(site: Site, tokenizer: Tokenizer, name: str, seed: int, round_number: int) -> ScalarModel:
    torch.manual_seed(seed)
    config = CONFIG.with_vocabulary(tokenizer.vocab_size)
    model = ScalarModel.from_language_model(LanguageModel(config), torch.Generator().manual_seed(seed))
    with torch.no_grad():
        model.head.weight.normal_()
    folder = site.workspace.artifacts / f"model-{seed:012x}"
    folder.mkdir()
    save_model(model, folder, tokenizer)
    save_calibration(folder, Calibration(1, 0.0, 0.0, 1.0))
    add_model(site.store, RegisteredModel(name, "reward", finish_artifact(folder, "model"), round=round_number))
    return model


@pytest.fixture(scope="module")
def rewarded(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer
) -> Iterator[tuple[httpx2.Client, RewardModel]]:
    """A served model of round 0, three reward models, and the one that is behind it."""
    with running_site(tmp_path_factory.mktemp("score"), tokenizer) as site:
        program = site.program()
        none = program.post("/v1/score", json={"prompt": "x", "answers": ["y"]})
        assert (none.status_code, none.json()["error"]["code"]) == (404, "model_not_found")
        own = add_reward(site, tokenizer, "reward-0", 71, 0)
        add_reward(site, tokenizer, "judge-0", 72, 0)
        add_reward(site, tokenizer, "reward-1", 73, 1)
        yield program, RewardModel(own, Calibration(1, 0.0, 0.0, 1.0), Compute(precision="float32"))


def score(program: httpx2.Client, **body: Any) -> list[float]:
    answer = program.post("/v1/score", json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["object"], found["model"]) == ("list", "reward-0")
    assert [one["index"] for one in found["data"]] == list(range(len(found["data"])))
    assert {one["object"] for one in found["data"]} == {"score"}
    assert found["usage"]["prompt_tokens"] == found["usage"]["total_tokens"]
    return [one["score"] for one in found["data"]]


def test_rewards_are_those_of_the_reward_model_of_the_served_round(
    rewarded: tuple[httpx2.Client, RewardModel], tokenizer: Tokenizer
) -> None:
    program, model = rewarded
    expected = []
    for answer in ANSWERS:  # one at a time, by the module alone
        ids = torch.tensor([encode_answer(tokenizer, ASKED, answer)])
        with torch.no_grad():
            expected.append(model.model(ids)[0, -1].item())
    assert score(program, model="sanbai", messages=ASKED, answers=ANSWERS) == pytest.approx(expected, abs=1e-5)
    assert score(program, model="reward-0", messages=ASKED, answers=ANSWERS) == pytest.approx(expected, abs=1e-5)
    assert len({round(one, 3) for one in expected}) == 3


def test_a_prompt_alone_and_vllms_words_mean_the_same(rewarded: tuple[httpx2.Client, RewardModel]) -> None:
    program, _ = rewarded
    both = score(program, messages=[{"role": "user", "content": "a"}], answers=ANSWERS)
    assert score(program, prompt="a", answers=ANSWERS) == pytest.approx(both, abs=1e-5)
    assert score(program, text_1="a", text_2=ANSWERS) == pytest.approx(both, abs=1e-5)
    assert score(program, text_1=["b", "a"], text_2=ANSWERS[:2])[1] == pytest.approx(both[1], abs=1e-5)
    assert score(program, text_1="a", text_2=ANSWERS[2]) == pytest.approx(both[2:], abs=1e-5)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"prompt": "x"}, 400, "invalid_value"),
        ({"prompt": "x", "messages": ASKED, "answers": ["y"]}, 400, "invalid_value"),
        ({"prompt": "x", "answers": []}, 400, "invalid_value"),
        ({"prompt": "x", "answers": ["y"] * 2049}, 400, "invalid_value"),
        ({"text_1": ["x", "y"], "text_2": ["z"]}, 400, "invalid_value"),
        ({"text_1": [], "text_2": []}, 400, "invalid_value"),
        ({"text_1": "x", "answers": ["y"]}, 400, "invalid_value"),
        ({"prompt": "x", "answers": ["bread " * 300]}, 400, "context_length_exceeded"),
        ({"prompt": "x" * 10**6, "answers": ["y"]}, 400, "context_length_exceeded"),
        ({"prompt": "x", "answers": ["y"], "model": "judge-0"}, 404, "model_not_found"),
        ({"messages": [{"role": "wizard"}], "answers": ["y"]}, 400, "invalid_value"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    rewarded: tuple[httpx2.Client, RewardModel], body: dict[str, Any], status: int, code: str
) -> None:
    refused = rewarded[0].post("/v1/score", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
