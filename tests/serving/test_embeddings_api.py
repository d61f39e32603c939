from __future__ import annotations

from typing import Any

import openai
import pytest
import torch
from tests.serving.conftest import Site

from sanbai.model.hugging_face import load_language_model
from sanbai.text.tokenizer import Tokenizer


def test_a_text_is_the_mean_of_its_tokens_in_either_encoding(site: Site, tokenizer: Tokenizer) -> None:
    texts = ["Anna bakes bread", "12 + 30 = 42"]
    with openai.OpenAI(base_url=f"{site.url}/v1", api_key=site.key(), max_retries=0) as client:
        packed = client.embeddings.create(model="sanbai", input=texts)  # the client asks for base64
        plain = client.embeddings.create(model="sanbai", input=texts, encoding_format="float")
    model = load_language_model(site.workspace.artifacts / "model-000000000000")
    for text, one, other in zip(texts, packed.data, plain.data, strict=True):
        ids = [tokenizer.reserved.end_of_text, *tokenizer.encode(text)]
        with torch.inference_mode():
            expected = torch.nn.functional.normalize(model.trunk(torch.tensor([ids]))[0].mean(0), dim=0)
        assert one.embedding == pytest.approx(expected.tolist(), abs=1e-6)
        assert other.embedding == pytest.approx(expected.tolist(), abs=1e-6)
    assert packed.usage.prompt_tokens == sum(1 + len(tokenizer.encode(text)) for text in texts)


@pytest.mark.parametrize(
    ("change", "param"),
    [({"input": []}, "input"), ({"input": [99_999]}, "input"), ({"dimensions": 3}, "dimensions")],
)
def test_what_has_no_vector_is_refused_by_name(site: Site, change: dict[str, Any], param: str) -> None:
    response = site.program().post("/v1/embeddings", json={"model": "sanbai", "input": "x"} | change)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
