"""The `langchain-openai` package itself against the server: what its users call, unchanged."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, SecretStr
from tests.serving.conftest import Site

from sanbai.text.chat_template import encode_prompt
from sanbai.text.tokenizer import Tokenizer

langchain_openai = pytest.importorskip("langchain_openai")
pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:UserWarning")  # the package's own

QUESTION = "Who bakes bread?"


class Verdict(BaseModel):
    """What a structured answer must look like."""

    baker: Literal["Anna", "her son", "nobody"]
    sure: bool


def chat(site: Site, **more: Any) -> Any:
    settings: dict[str, Any] = {"temperature": 0.8, "seed": 4, "max_tokens": 20, "max_retries": 0} | more
    return langchain_openai.ChatOpenAI(
        model="sanbai", base_url=f"{site.url}/v1", api_key=SecretStr(site.key()), **settings
    )


def test_an_answer_has_text_reason_and_the_tokenizers_count(site: Site, tokenizer: Tokenizer) -> None:
    answer = chat(site).invoke([("system", "Be brief."), ("human", QUESTION)])
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    assert answer.content
    assert answer.usage_metadata["input_tokens"] == len(encode_prompt(tokenizer, turns))
    assert answer.usage_metadata["output_tokens"] <= 20
    assert answer.response_metadata["finish_reason"] in {"stop", "length"}
    assert answer.response_metadata["model_name"] == "model-0"


def test_a_stream_adds_up_to_the_whole_answer_and_its_usage(site: Site) -> None:
    whole = chat(site).invoke(QUESTION)
    chunks = list(chat(site, stream_usage=True).stream(QUESTION))
    assert len(chunks) > 2
    added = chunks[0]
    for chunk in chunks[1:]:
        added += chunk
    assert added.content == whole.content
    assert added.usage_metadata == whole.usage_metadata
    assert added.response_metadata["finish_reason"] == whole.response_metadata["finish_reason"]


def test_a_batch_is_answered_in_order(site: Site) -> None:
    questions = [QUESTION, "12 + 30?", "What does her son like?"]
    together = chat(site).batch(questions, config={"max_concurrency": 3})
    alone = [chat(site).invoke(question).content for question in questions]
    assert [answer.content for answer in together] == alone
    assert len(set(alone)) == 3


async def read(model: Any) -> str:
    return "".join([chunk.content async for chunk in model.astream(QUESTION)])


def test_the_asynchronous_stream_says_the_same(site: Site) -> None:
    import asyncio

    model = chat(site)
    assert asyncio.run(read(model)) == model.invoke(QUESTION).content


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_structured_answer_is_of_its_class(site: Site, seed: int) -> None:
    asking = chat(site, seed=seed, max_tokens=60, temperature=1.0).with_structured_output(Verdict, method="json_schema")
    found = asking.invoke(QUESTION)
    assert isinstance(found, Verdict)
    assert found.baker in {"Anna", "her son", "nobody"}


def test_log_probabilities_come_where_the_package_looks_for_them(site: Site) -> None:
    answer = chat(site, logprobs=True, top_logprobs=2).invoke(QUESTION)
    content = answer.response_metadata["logprobs"]["content"]
    assert len(content) >= answer.usage_metadata["output_tokens"] > 0
    assert all(len(token["top_logprobs"]) == 2 and token["logprob"] <= 0 for token in content)


def test_a_refusal_is_the_packages_own_exception(site: Site) -> None:
    import openai

    with pytest.raises(openai.BadRequestError, match="temperature"):
        chat(site, temperature=7.0).invoke(QUESTION)
