from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
import torch
from tests.serving.conftest import Site

from sanbai.generation.answering import generate
from sanbai.generation.sampling import Sampling
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import load_language_model
from sanbai.text.chat_template import encode_prompt
from sanbai.text.tokenizer import Tokenizer

TEXT = "Anna bakes bread in the"


@pytest.fixture
def client(site: Site) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{site.url}/v1", api_key=site.key(), max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def model(site: Site) -> LanguageModel:
    return load_language_model(site.workspace.artifacts / "model-000000000000")


@torch.inference_mode()
def logprobs_of(model: LanguageModel, ids: list[int]) -> torch.Tensor:
    """The model's own log-probabilities after each token, by one plain pass."""
    return model(torch.tensor([ids]))[0].double().log_softmax(-1)


def test_a_text_is_continued_as_a_document_from_its_beginning(
    client: openai.OpenAI, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    answer = client.completions.create(model="sanbai", prompt=TEXT, temperature=0, max_tokens=9)
    ids = [tokenizer.reserved.end_of_text, *tokenizer.encode(TEXT)]
    stops = tokenizer.reserved.ends()
    (expected,) = generate(model, [ids], Sampling(temperature=0.0, max_new_tokens=9), seeds=[1], stop_ids=stops)
    assert answer.object == "text_completion"
    assert answer.choices[0].text == tokenizer.decode(expected.tokens)
    assert answer.choices[0].finish_reason == expected.finish_reason
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(ids)
    said = client.completions.create(model="sanbai", prompt=ids, temperature=0, max_tokens=9)
    assert said.choices[0].text == answer.choices[0].text


def test_echoed_log_probabilities_are_those_of_one_plain_pass(
    client: openai.OpenAI, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    answer = client.completions.create(
        model="sanbai", prompt=TEXT, echo=True, logprobs=3, temperature=0, max_tokens=4, logit_bias={"5": -100}
    )
    (choice,) = answer.choices
    assert choice.text.startswith(TEXT)
    found = choice.logprobs
    assert found is not None
    assert found.token_logprobs
    assert found.top_logprobs
    assert found.text_offset
    ids = [tokenizer.reserved.end_of_text, *tokenizer.encode(TEXT)]
    new = tokenizer.encode(TEXT)
    assert found.token_logprobs[0] is None
    expected = logprobs_of(model, ids)
    for place, token in enumerate(new):
        assert found.token_logprobs[place + 1] == pytest.approx(float(expected[place, token]), abs=1e-4)
        best = expected[place].topk(3)
        assert list(found.top_logprobs[place + 1].values()) == pytest.approx(best.values.tolist(), abs=1e-4)
    # Offsets cut the text into its tokens; the mark of a document's beginning has no room in it.
    assert found.text_offset[:2] == [0, 0]
    whole = [tokenizer.decode([tokenizer.reserved.end_of_text, *new[:count]]) for count in range(len(new))]
    assert found.text_offset[1 : len(new) + 1] == [len(text) for text in whole]


def test_without_tokens_to_make_only_the_prompt_is_scored(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="sanbai", prompt=TEXT, echo=True, logprobs=0, max_tokens=0)
    assert answer.choices[0].text == TEXT
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 0
    assert answer.choices[0].logprobs is not None
    assert len(answer.choices[0].logprobs.token_logprobs or []) == answer.usage.prompt_tokens


def test_several_prompts_and_choices_come_in_order_each_with_draws_of_its_own(client: openai.OpenAI) -> None:
    settings: dict[str, Any] = {"temperature": 1.0, "max_tokens": 12, "seed": 5}
    both = client.completions.create(model="sanbai", prompt=[TEXT, "12 + 30"], n=2, **settings)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    assert len({choice.text for choice in both.choices}) == 4
    first = client.completions.create(model="sanbai", prompt=TEXT, n=2, **settings)
    assert [choice.text for choice in first.choices] == [choice.text for choice in both.choices[:2]]


@pytest.mark.parametrize("echo", [False, True])
def test_streamed_and_whole_are_equal(client: openai.OpenAI, *, echo: bool) -> None:
    settings: dict[str, Any] = {"seed": 4, "n": 2, "max_tokens": 20, "temperature": 1.0, "echo": echo}
    whole = client.completions.create(model="sanbai", prompt=TEXT, **settings)
    texts, reasons, usage = ["", ""], ["", ""], None
    for chunk in client.completions.create(
        model="sanbai", prompt=TEXT, stream=True, stream_options={"include_usage": True}, **settings
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.text for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage


def test_log_probabilities_are_streamed_token_by_token(client: openai.OpenAI) -> None:
    settings: dict[str, Any] = {"seed": 4, "max_tokens": 8, "temperature": 1.0, "logprobs": 2}
    whole = client.completions.create(model="sanbai", prompt=TEXT, **settings).choices[0].logprobs
    assert whole is not None
    assert whole.token_logprobs
    streamed: list[float] = []
    for chunk in client.completions.create(model="sanbai", prompt=TEXT, stream=True, **settings):
        for choice in chunk.choices:
            if choice.logprobs is not None:
                streamed += choice.logprobs.token_logprobs or []
    assert streamed == pytest.approx(whole.token_logprobs, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [1, 99_999]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": "word " * 5000}, "prompt"),
        ({"prompt": ["x"] * 1000}, "prompt"),
        ({"logprobs": 21}, "logprobs"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"n": 17}, "n"),
        ({"logit_bias": {"99999": 1}}, "logit_bias"),
        ({"stream": True, "echo": True, "logprobs": 1}, "echo"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(site: Site, change: dict[str, Any], param: str) -> None:
    response = site.program().post("/v1/completions", json={"model": "sanbai", "prompt": TEXT} | change)
    assert response.status_code == 400
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert response.json()["error"]["param"] == param


def test_tokens_and_text_are_each_others_inverse(site: Site, tokenizer: Tokenizer) -> None:
    program = site.program()
    told = program.post("/tokenize", json={"prompt": TEXT}).json()
    assert told["tokens"] == tokenizer.encode(TEXT)
    assert told["count"] == len(told["tokens"])
    assert told["max_model_len"] == 256
    assert program.post("/detokenize", json={"tokens": told["tokens"]}).json() == {"prompt": TEXT}
    messages = [{"role": "user", "content": TEXT}]
    assert program.post("/tokenize", json={"messages": messages}).json()["tokens"] == encode_prompt(tokenizer, messages)
    assert program.post("/tokenize", json={}).status_code == 400
    assert program.post("/detokenize", json={"tokens": [99_999]}).status_code == 400


def test_the_tokenizer_names_its_marks_and_a_name_alone_is_the_mark(site: Site, tokenizer: Tokenizer) -> None:
    program = site.program()
    told = program.get("/tokenizer_info").json()
    assert told["vocab_size"] == tokenizer.vocab_size
    assert (told["bos_token"], told["eos_token"]) == ("<|end_of_text|>", "<|end_of_text|>")
    for name, id_ in (("bos_token", tokenizer.reserved.end_of_text), ("pad_token", tokenizer.reserved.pad)):
        assert program.post("/tokenize", json={"prompt": told[name]}).json()["tokens"] == [id_]
    within = program.post("/tokenize", json={"prompt": f"Anna {told['bos_token']}"}).json()["tokens"]
    assert not tokenizer.reserved_ids & set(within)


def test_a_text_may_have_as_many_stops_as_evaluations_send(site: Site) -> None:
    body = {"model": "sanbai", "prompt": TEXT, "max_tokens": 2}
    stops = [f"stop {number}" for number in range(17)]
    assert site.program().post("/v1/completions", json=body | {"stop": stops[:16]}).status_code == 200
    assert site.program().post("/v1/completions", json=body | {"stop": stops}).status_code == 400


@pytest.mark.parametrize("place", ["/v1/completions", "/tokenize", "/detokenize"])
def test_nothing_is_said_to_strangers_nor_to_keys_for_something_else(site: Site, place: str) -> None:
    assert site.stranger().post(place, json={"prompt": TEXT}).status_code == 401
    assert site.program(scopes=("api",)).post(place, json={"prompt": TEXT}).status_code == 403
