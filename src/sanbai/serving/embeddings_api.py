"""Embeddings, in OpenAI's frame: the mean of the last layer's vectors over a text's tokens, of length 1.

The model was trained to write, not to compare: texts near one another have near vectors, and no more is promised.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from torch import Tensor

from sanbai.serving.answers import unless_gone
from sanbai.serving.engine import ServedModel
from sanbai.serving.openai_api import served_as
from sanbai.serving.openai_schema import Prompt, each_prompt
from sanbai.serving.problems import Problem
from sanbai.serving.readings import reading_for
from sanbai.serving.routes import Call, PlainText, Row
from sanbai.serving.text_api import encode_text

MOST_INPUTS = 2048


class EmbeddingRequest(BaseModel):
    """The body of POST /v1/embeddings."""

    model_config = ConfigDict(allow_inf_nan=False)

    model: PlainText = Field(min_length=1, max_length=200)
    input: Prompt
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1)


async def embed(call: Call) -> dict[str, Any]:
    """Return a vector for each text."""
    request = call.body(EmbeddingRequest)
    served = served_as(call, request.model)
    width = served.model.config.width
    if request.dimensions not in {None, width}:
        raise Problem(400, f"dimensions: the model has {width}", "invalid_value", param="dimensions")
    inputs = each_prompt(request.input)
    if not 0 < len(inputs) <= MOST_INPUTS:
        raise Problem(400, f"input: wanted 1 to {MOST_INPUTS} texts", "invalid_value", param="input")
    rows = await run_in_threadpool(lambda: [encode_text(served, text, param="input") for text in inputs])
    reading, vectors = reading_for(
        rows, lambda some: [mean_vector(served, ids) for ids in some], tenant=call.account.id
    )
    call.house.engine.read(reading)
    try:
        found = await unless_gone(call.request, vectors)
    finally:
        reading.stop()
    data = [
        {"object": "embedding", "index": index, "embedding": _shown(vector_D, request.encoding_format)}
        for index, vector_D in enumerate(found)
    ]
    count = sum(map(len, rows))
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": data, "model": served.name, "usage": usage}


@torch.inference_mode()
def mean_vector(served: ServedModel, ids: Sequence[int]) -> Tensor:
    """Return vector_D, float32, of length 1: the mean over the tokens of the trunk's last hidden vectors.

    Args:
        served: the model.
        ids: tokens of one text, at least one.
    """
    hidden_1TD = served.model.trunk(torch.tensor([ids], device=served.model.head_weight.device))
    mean_D = hidden_1TD[0].float().mean(dim=0).cpu()
    vector_D: Tensor = mean_D / mean_D.norm().clamp(min=1e-12)
    return vector_D


def _shown(vector_D: Tensor, encoding: str) -> list[float] | str:
    if encoding == "float":
        return list(vector_D.tolist())
    return base64.b64encode(vector_D.numpy().astype("<f4").tobytes()).decode("ascii")


ROWS = (Row("POST", "/v1/embeddings", "user", embed, EmbeddingRequest),)
