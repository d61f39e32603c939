"""An encoder's part in the continuous engine: each text is read once, whole, when its answer begins.

Texts of one length are read together and none is padded, so that a text's numbers do not depend on the others'; where
experts have places for so many of a batch, each text is a batch. A step that begins many long ones takes as long as
they need: `step_tokens` does not cut them up.

Shapes: B texts of one length, M positions.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from sanbai.generation.row import Row
from sanbai.model.adapters.several import SeveralAdapters
from sanbai.model.encoder_decoder import EncoderDecoder
from sanbai.model.paged_memory import Memory


def encode_rows(model: EncoderDecoder, rows: Iterable[Row], adapters: SeveralAdapters) -> None:
    """Give each row what the encoder, with the row's adapter, read of its prompt; rows that agree in both share it."""
    rows_of: dict[tuple[str | None, tuple[int, ...]], list[Row]] = {}
    for row in rows:
        rows_of.setdefault((row.request.adapter, tuple(row.request.prompt)), []).append(row)
    batches: dict[object, list[tuple[str | None, tuple[int, ...]]]] = {}
    for key in rows_of:
        batches.setdefault(key if model.config.batch_competes else len(key[1]), []).append(key)
    device = model.decoder.head_weight.device
    for keys in batches.values():
        adapters.route([name for name, _ in keys])
        tokens_BM = torch.tensor([prompt for _, prompt in keys], dtype=torch.int64, device=device)
        k_LBGMK, v_LBGMK = model.project(model.encode(tokens_BM))
        adapters.route(())
        for place, key in enumerate(keys):
            memory = Memory(k_LBGMK[:, place].clone(), v_LBGMK[:, place].clone())
            for row in rows_of[key]:
                row.memory = memory
