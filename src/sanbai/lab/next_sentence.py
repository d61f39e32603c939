"""Next-sentence prediction on held-out documents (Devlin et al. 2018, arXiv:1810.04805, section 3.1: 97 to 98 %).

Control: the same pairs, their first texts given round, so that no pair tells its label: a model that reads only the
second text, or the length, would still score; one that compares both falls to a half.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sanbai.data.masking import MaskedBatch, Masking
from sanbai.data.sentence_pairs import SentencePairs
from sanbai.foundation.seeds import derive_seed
from sanbai.lab.bench import READER, ROW_LENGTH, Bench, shape
from sanbai.lab.trials import Phenomenon
from sanbai.text.tokenizer import Tokenizer
from sanbai.training.masked_rows import measure_masked


def unmasked(batch: MaskedBatch) -> MaskedBatch:
    """Return pairs with nothing hidden, as they are read at use."""
    return replace(batch, tokens_BT=batch.targets_BT)


def given_round(batch: MaskedBatch, tokenizer: Tokenizer) -> MaskedBatch:
    """Return pairs whose first texts moved on by one row; labels and second texts stay."""
    real_BT = batch.segments_BT != 0
    rows = range(len(batch.targets_BT))
    firsts = [batch.targets_BT[row][real_BT[row] & (batch.types_BT[row] == 0)] for row in rows]
    seconds = [batch.targets_BT[row][real_BT[row] & (batch.types_BT[row] == 1)] for row in rows]
    joined = [np.concatenate([firsts[row - 1], seconds[row]]) for row in rows]
    width = max(map(len, joined))
    tokens_BT = np.full((len(joined), width), tokenizer.reserved.pad, dtype=np.int64)
    types_BT, segments_BT = np.zeros_like(tokens_BT), np.zeros_like(tokens_BT)
    for row in rows:
        end = len(joined[row])
        tokens_BT[row, :end] = joined[row]
        types_BT[row, len(firsts[row - 1]) : end] = 1
        segments_BT[row, :end] = 1
    chosen_BT = np.zeros(tokens_BT.shape, dtype=np.bool_)
    chosen_BT[:, 0] = True  # one token to look at: the numbers on tokens are not used
    positions_BT = np.tile(np.arange(width), (len(joined), 1))
    return MaskedBatch(tokens_BT, segments_BT, positions_BT, types_BT, tokens_BT, chosen_BT, batch.unrelated_B)


def measure(bench: Bench) -> dict[str, float]:
    """Train one model and return the figures."""
    artifact = bench.pretrained(shape(bench.size, masks=("full",), **READER), objective="masked", next_sentence=True)
    model: Any = bench.open(artifact)
    pairs = SentencePairs(
        bench.heldout,
        Masking(bench.tokenizer),
        bench.tokenizer,
        row_length=ROW_LENGTH,
        batch_rows=bench.size.num_texts,
        seed=derive_seed(bench.seed, "lab", "next sentence"),
    )
    batch = unmasked(next(pairs))
    found = {
        "held-out pairs": batch,
        "first texts given round": given_round(batch, bench.tokenizer),
    }
    return {
        name: measure_masked(model, rows, bench.compute, micro_batch_rows=16)["next_sentence_accuracy"]
        for name, rows in found.items()
    }


NEXT_SENTENCE = Phenomenon(
    name="next_sentence",
    claim="A pretrained reader tells a following text from a foreign one (BERT, arXiv:1810.04805: 97 to 98 %).",
    measure=measure,
    effect=("held-out pairs",),
    control=("first texts given round",),
)
