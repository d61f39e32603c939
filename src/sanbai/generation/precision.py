"""The weights that write: as they are stored, or a copy that decodes faster.

A copy in half precision has its own memory only where the model is not in it yet: the frozen base of an adapter in
training is shared, and then not packed either, since that would hold it twice.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch

from sanbai.foundation.device import Compute
from sanbai.generation.writer import AnyWriter
from sanbai.model.packed import Bits, pack_linears

DecodingPrecision = Literal["stored", "bfloat16", "int8", "int4"]
"""Of the weights that write: as they were saved, or a copy in sixteen, eight or four bits a weight. The embeddings are
in bfloat16 in all copies."""
NUM_BITS: dict[DecodingPrecision, Bits] = {"bfloat16": 16, "int8": 8, "int4": 4}


def decoding_precision(compute: Compute) -> DecodingPrecision:
    """Return how a stage decodes: in bfloat16 where its products are."""
    return "bfloat16" if compute.precision == "bfloat16" else "stored"


def decoding_copy(model: AnyWriter, precision: DecodingPrecision) -> AnyWriter:
    """Return a copy in the precision wanted, its weights packed where that is faster; the model itself if `stored`.

    Raises:
        ModelError: int8 or int4 where this processor or the model's shape has no such products.
    """
    if precision == "stored":
        return model
    shared = [each for each in model.parameters() if each.dtype == torch.bfloat16 and not each.requires_grad]
    copied = copy.deepcopy(model, {id(parameter): parameter for parameter in shared})
    copied.to(torch.bfloat16)
    pack_linears(copied, NUM_BITS[precision], besides=shared)
    return copied
