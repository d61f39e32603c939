"""The chat's choice against an independent one: the batch engine draws the candidates, one forward pass judges them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.serving.conftest import Site, ask, read_events, running_site
from tests.serving.test_chat import messages_of, slowly

from sanbai.feedback.registry import find_model
from sanbai.foundation.device import Compute
from sanbai.foundation.errors import ModelError, RecipeError
from sanbai.foundation.recipe import validate_recipe
from sanbai.foundation.seeds import derive_seed
from sanbai.generation.answering import Completion, generate
from sanbai.generation.engine import ContinuousEngine
from sanbai.generation.request import Request
from sanbai.generation.sampling import Sampling
from sanbai.model.hugging_face import load_language_model
from sanbai.objectives.self_judgement import CHOICE_ATTRIBUTES, best_safe
from sanbai.serving.engine import ServedModel, check_servable
from sanbai.serving.recipe import ServeRecipe
from sanbai.text.chat_template import encode_prompt
from sanbai.text.reserved import RATING_MARKERS
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.self_judge import probabilities
from sanbai.training.trees import Tree

__all__ = ["slowly"]

NUM = 5
#: The random model thinks no answer likely to be safe; this leaves out about half of them.
THRESHOLD = 0.0873


@pytest.fixture(scope="module")
def judging(tokenizer: Tokenizer) -> Tokenizer:
    return tokenizer.with_markers(list(RATING_MARKERS.values()))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, judging: Tokenizer) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("candidates")
    with running_site(folder, judging, candidates=NUM, safe_threshold=THRESHOLD, max_active_per_account=100) as made:
        yield made


def answer_to(site: Site, client: httpx2.Client, content: str, seed: int) -> str:
    asked = ask(client, content, seed=seed)
    events = read_events(client, asked["generations"][0]["id"])
    assert events[-1]["kind"] == "done"
    text = messages_of(client, asked["conversation"])[1]["content"]
    assert "".join(event["text"] for event in events if event["kind"] == "text") == text
    return str(text)


def served(site: Site) -> ServedModel:
    found: ServedModel = site.app.state.house.engine.served
    return found


def drawn_apart(site: Site, judging: Tokenizer, content: str, seed: int) -> tuple[list[int], list[Completion]]:
    prompt = encode_prompt(judging, [{"role": "user", "content": content}])
    completions = generate(
        load_language_model(site.workspace.load(served(site).artifact).path),
        [prompt] * NUM,
        Sampling(temperature=1.0, max_new_tokens=24),
        seeds=[derive_seed(seed, "candidate", number) for number in range(NUM)],
        stop_ids=judging.reserved.ends(),
    )
    return prompt, completions


def judged_apart(
    site: Site, judging: Tokenizer, prompt: list[int], completions: list[Completion]
) -> list[dict[str, float]]:
    ids = judging.rating
    branches = tuple((getattr(ids, attribute), ids.no) for attribute in CHOICE_ATTRIBUTES)
    answers = [
        [token for token in completion.tokens if token not in judging.reserved.ends()] for completion in completions
    ]
    trees = [Tree((*prompt, *answer, judging.reserved.end), branches) for answer in answers]
    model = load_language_model(site.workspace.load(served(site).artifact).path)
    found = probabilities(model, judging, trees, Compute(num_threads=1, precision="float32"))
    return [dict(zip(CHOICE_ATTRIBUTES, each, strict=True)) for each in found]


def test_the_best_of_the_safe_candidates_is_given(house: Site, judging: Tokenizer) -> None:
    client = house.client()
    choices, num_filtered = [], 0
    for seed in range(8):
        content = f"Who bakes bread on day {seed}?"
        prompt, completions = drawn_apart(house, judging, content, seed)
        judged = judged_apart(house, judging, prompt, completions)
        best = best_safe(judged, threshold=THRESHOLD)
        expected = house.app.state.house.settings.unsafe_answer
        if best is not None:
            expected = judging.decode(completions[best].tokens)
        assert answer_to(house, client, content, seed) == expected
        choices.append(best)
        num_filtered += best != best_safe(judged, threshold=0.0)
    assert len(set(choices) - {0, None}) > 1  # the first would not have done
    assert num_filtered > 0  # nor the best of all


def test_a_question_reads_less_than_two_blocks_anew(
    house: Site, judging: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read to write an answer is not read again to judge it."""
    asked: list[Request] = []
    submit = ContinuousEngine.submit
    monkeypatch.setattr(
        ContinuousEngine, "submit", lambda engine, request: asked.append(request) or submit(engine, request)
    )
    client = house.client()
    answer_to(house, client, "Does her son like painting? " * 4, 3)  # so that the engine is there
    asked.clear()
    scheduler = house.app.state.house.engine._engines[served(house).artifact]._engine.scheduler
    before = scheduler.num_found_tokens
    answer_to(house, client, "And what does Anna like? " * 4, 4)
    opening, *questions = asked
    assert len(opening.seeds) == NUM
    assert NUM <= len(questions) <= 4 * NUM
    read_anew = sum(len(question.prompt) for question in questions) - (scheduler.num_found_tokens - before)
    assert read_anew <= len(questions) * (16 + 3)
    assert sum(len(question.prompt) for question in questions) > len(questions) * 60


def test_where_no_candidate_is_safe_the_fixed_answer_is_given(tmp_path: Path, judging: Tokenizer) -> None:
    with running_site(tmp_path, judging, candidates=2, safe_threshold=1.0, unsafe_answer="Not that.") as site:
        assert answer_to(site, site.client(), "Who bakes bread?", 1) == "Not that."


@pytest.mark.usefixtures("slowly")
def test_nothing_is_shown_before_the_choice_and_a_stop_gives_nothing(house: Site) -> None:
    client = house.client()
    asked = ask(client, seed=7)
    time.sleep(0.3)
    assert messages_of(client, asked["conversation"])[-1]["content"] == ""
    generation = asked["generations"][0]["id"]
    assert client.post(f"/api/generations/{generation}/stop").status_code in {200, 204}
    assert read_events(client, generation)[-1]["state"] == "stopped"
    assert messages_of(client, asked["conversation"])[-1]["content"] == ""


def test_two_drafts_are_two_choices(house: Site) -> None:
    client = house.client()
    asked = ask(client, seed=3, drafts=2)
    assert len(asked["generations"]) == 2
    for generation in asked["generations"]:
        assert read_events(client, generation["id"])[-1]["kind"] == "done"


def test_a_conversation_as_long_as_the_context_still_leaves_room_for_a_rating(house: Site) -> None:
    client = house.client()
    asked = ask(client, "bread " * 400, seed=5)
    events = read_events(client, asked["generations"][0]["id"])
    assert [event["kind"] for event in events].count("done") == 1
    assert events[-1]["kind"] == "done"  # not an error: answer and rating found a place


def test_a_model_that_does_not_judge_is_refused_with_the_next_step(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with running_site(tmp_path, tokenizer, candidates=2) as site:
        client = site.client()
        conversation = client.post("/api/conversations", json={}).json()["id"]
        refused = client.post(f"/api/conversations/{conversation}/messages", json={"content": "Hello?"})
        assert refused.status_code == 503
        assert "model-0 does not judge its answers, and serve.candidates is 2" in refused.text
        known = find_model(site.store, "model-0")
        check_servable(site.workspace, known, ServeRecipe())
        with pytest.raises(ModelError, match=r"serve one of `sanbai train self-judge`, or set it to 1"):
            check_servable(site.workspace, known, ServeRecipe(candidates=2))


def test_another_servers_model_does_not_judge() -> None:
    with pytest.raises(RecipeError, match="another server's model does not judge candidates"):
        validate_recipe(ServeRecipe, {"backend": "http://127.0.0.1:9/v1", "candidates": 2}, source="here.toml")
