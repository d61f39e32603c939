"""Masked beats causal on clozes that need the right-hand context (Devlin et al. 2018, arXiv:1810.04805, section 5.1).

A stranger's trade is left out of `<name> is a <trade>. She <does the trade's work>.` and one trade is filled in. What
tells it stands on the right; the name tells nothing. Two models of the same shape read the same text for the same
steps, one by masked tokens and one by next tokens. Controls: the same with the work on the left, where both should
succeed; and the masked model with the right-hand side of another trade, where it must fail.

Masked models rank the trades by their log-probability in the gap, causal ones by that behind the left side, both in one
pass. Each trade is one token of `SIZE`'s vocabulary, as such probes have it (Petroni et al. 2019, arXiv:1909.01066);
where it is cut into several, all are hidden and their mean counts. A causal model can also weigh the whole sentence, a
pass for each of the fifteen trades; that figure is reported too. `MASK_SHARE` of the tokens are learned by the masked
model, more than BERT's 0.15 (Wettig et al. 2022, arXiv:2202.08005): even so fewer than by the causal one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sanbai.foundation.seeds import python_random
from sanbai.lab.bench import READER, Bench, shape
from sanbai.lab.transfer import SIZE, pretrained_on_text
from sanbai.lab.trials import Phenomenon
from sanbai.model.heads import LanguageModel
from sanbai.model.reading_heads import MaskedModel
from sanbai.objectives.language import token_logprobs
from sanbai.text.tokenizer import Tokenizer
from sanbai.world.lexicon import TRADE_WORK
from sanbai.world.names import FEMALE

#: Of the tokens, learned by the masked model.
MASK_SHARE = 0.4


@dataclass(frozen=True)
class Cloze:
    """A text around a gap, what may fill it, and what does."""

    left: str
    right: str
    options: tuple[str, ...]
    answer: int


def trade_clozes(names: Sequence[str], num: int, seed: int, *, told: str) -> list[Cloze]:
    """Return clozes of trades.

    Args:
        names: people of whom nothing is known.
        num: how many.
        seed: of the draw.
        told: `right` or `left` of the gap stands the work; `wrong`: on the right stands another trade's.
    """
    generator = python_random(seed, "clozes", told)
    trades = tuple(TRADE_WORK)
    clozes = []
    for _ in range(num):
        name, answer = generator.choice(names), generator.randrange(len(trades))
        shown = generator.choice([other for other in range(len(trades)) if other != answer])
        work = TRADE_WORK[trades[answer if told != "wrong" else shown]]
        pronoun = "She" if name in FEMALE else "He"
        if told == "left":
            clozes.append(Cloze(f"{name} {work}. {pronoun} is a", ".", trades, answer))
        else:
            clozes.append(Cloze(f"{name} is a", f". {pronoun} {work}.", trades, answer))
    return clozes


@torch.no_grad()
def masked_accuracy(model: MaskedModel, tokenizer: Tokenizer, clozes: Sequence[Cloze]) -> float:
    """Return the share of clozes whose answer gets the highest mean log-probability, all its tokens hidden."""
    ids = tokenizer.reading
    right = 0
    for cloze in clozes:
        rows, gaps = [], []
        for option in cloze.options:
            whole = tokenizer.encode(f"{cloze.left} {option}{cloze.right}")
            start = len(tokenizer.encode(cloze.left))
            stop = len(tokenizer.encode(f"{cloze.left} {option}"))
            rows.append([ids.cls, *whole, ids.sep])
            gaps.append(range(start + 1, stop + 1))
        tokens_BT, segments_BT = _pad(rows, tokenizer.reserved.pad)
        hidden_BT = tokens_BT.clone()
        for line, gap in enumerate(gaps):
            hidden_BT[line, list(gap)] = ids.mask
        logprob_BT = _logprobs(model(hidden_BT, segments_BT=segments_BT), tokens_BT)
        scores = [logprob_BT[line, list(gap)].mean().item() for line, gap in enumerate(gaps)]
        right += max(range(len(scores)), key=scores.__getitem__) == cloze.answer
    return right / len(clozes)


@torch.no_grad()
def causal_accuracy(model: LanguageModel, tokenizer: Tokenizer, clozes: Sequence[Cloze], *, whole: bool) -> float:
    """Return the share of clozes whose answer gets the highest mean log-probability behind the left side.

    Args:
        model: reads from the left.
        tokenizer: the model's.
        clozes: at least one.
        whole: also count what follows the gap: the sum over the whole text instead.
    """
    mark = tokenizer.reserved.end_of_text
    right = 0
    for cloze in clozes:
        rows, gaps = [], []
        for option in cloze.options:
            row = [mark, *tokenizer.encode(f"{cloze.left} {option}{cloze.right}")]
            start = len(tokenizer.encode(cloze.left)) + 1
            stop = len(row) if whole else len(tokenizer.encode(f"{cloze.left} {option}")) + 1
            rows.append(row)
            gaps.append(range(start, stop))
        tokens_BT, segments_BT = _pad(rows, tokenizer.reserved.pad)
        logprob_BT = _logprobs(model(tokens_BT, segments_BT=segments_BT)[:, :-1], tokens_BT[:, 1:])
        totals = [logprob_BT[line, [place - 1 for place in gap]] for line, gap in enumerate(gaps)]
        scores = [(total.sum() if whole else total.mean()).item() for total in totals]
        right += max(range(len(scores)), key=scores.__getitem__) == cloze.answer
    return right / len(clozes)


def measure(bench: Bench) -> dict[str, float]:
    """Train both models and return the figures."""
    bench, base = pretrained_on_text(bench)
    causal: Any = bench.open(base)
    reader = shape(bench.size, masks=("full",), **READER)
    masked: Any = bench.open(bench.pretrained(reader, objective="masked", next_sentence=False, mask_share=MASK_SHARE))
    tokenizer, village, num = bench.tokenizer, bench.village, bench.size.num_texts
    names = (*village.strangers, *village.heldout_strangers)
    told = {kind: trade_clozes(names, num, bench.seed, told=kind) for kind in ("right", "left", "wrong")}
    return {
        "masked, told on the right": masked_accuracy(masked, tokenizer, told["right"]),
        "causal, told on the right": causal_accuracy(causal, tokenizer, told["right"], whole=False),
        "causal, weighing whole sentences": causal_accuracy(causal, tokenizer, told["right"], whole=True),
        "masked, told on the left": masked_accuracy(masked, tokenizer, told["left"]),
        "causal, told on the left": causal_accuracy(causal, tokenizer, told["left"], whole=False),
        "masked, told of another trade": masked_accuracy(masked, tokenizer, told["wrong"]),
    }


CLOZES = Phenomenon(
    name="clozes",
    claim="Masked models use the right-hand context, which causal ones do not see (BERT, arXiv:1810.04805).",
    measure=measure,
    effect=("masked, told on the right", "masked, told on the left", "causal, told on the left"),
    control=("causal, told on the right", "causal, weighing whole sentences", "masked, told of another trade"),
    size=SIZE,
)


def _pad(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    tokens_BT = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])
    segments_BT = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return tokens_BT, segments_BT


def _logprobs(logits_BTV: Tensor, target_BT: Tensor) -> Tensor:
    return token_logprobs(logits_BTV.flatten(0, 1), target_BT.flatten()).view(target_BT.shape)
