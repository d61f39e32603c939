"""The n-gram model against plain dictionaries, and against the laws of probability."""

from __future__ import annotations

import random
from collections import Counter
from math import log2

import numpy as np
import pytest

from sanbai.evaluation.ngram import FALLBACK_DISCOUNTS, NgramModel, fit_ngram, longest_order, modified_discounts
from sanbai.foundation.errors import DataError

VOCABULARY = 12
BEGIN = 0


class PlainKneserNey:
    """The textbook's recursion with dictionaries and sets of whole tuples, nothing packed, nothing sorted."""

    def __init__(self, documents: list[list[int]], order: int) -> None:
        self.order = order
        grams: list[tuple[int, ...]] = []
        for document in documents:
            padded = [BEGIN] * (order - 1) + document
            grams += [tuple(padded[end - order : end]) for end in range(order, len(padded) + 1)]
        self.counts: dict[int, Counter[tuple[int, ...]]] = {order: Counter(grams)}
        for size in range(order - 1, 0, -1):
            before: dict[tuple[int, ...], set[int]] = {}
            for gram in self.counts[size + 1]:
                before.setdefault(gram[1:], set()).add(gram[0])
            self.counts[size] = Counter({gram: len(tokens) for gram, tokens in before.items()})

    def discount(self, size: int, count: int) -> float:
        times = Counter(self.counts[size].values())
        if count == 0:
            return 0.0
        if all(times[number] for number in (1, 2, 3, 4)):
            y = times[1] / (times[1] + 2 * times[2])
            found = [k - (k + 1) * y * times[k + 1] / times[k] for k in (1, 2, 3)]
            if all(0 <= value <= k for k, value in enumerate(found, start=1)):
                return found[min(count, 3) - 1]
        return FALLBACK_DISCOUNTS[min(count, 3) - 1]

    def probability(self, token: int, context: tuple[int, ...]) -> float:
        size = len(context) + 1
        lower = 1 / VOCABULARY if size == 1 else self.probability(token, context[1:])
        following = {gram: count for gram, count in self.counts[size].items() if gram[:-1] == context}
        if not following:
            return lower
        total = sum(following.values())
        left = sum(self.discount(size, count) for count in following.values()) / total
        count = following.get((*context, token), 0)
        return (count - self.discount(size, count)) / total + left * lower


def chain(num_documents: int, seed: int) -> list[list[int]]:
    """Return documents in which the next token depends on the last two; token 1 never occurs."""
    generator = random.Random(seed)
    documents = []
    for _ in range(num_documents):
        document = [2, 3]
        for _ in range(generator.randrange(0, 40)):
            step = generator.choice([1, 1, 1, 2, 5])
            document.append(2 + (document[-1] + document[-2] + step) % (VOCABULARY - 2))
        documents.append(document)
    return documents


@pytest.fixture(scope="module")
def fitted() -> NgramModel:
    return fit_ngram(chain(60, seed=1), vocab_size=VOCABULARY, begin_id=BEGIN)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("num_documents", [1, 4, 60])
def test_bits_are_those_of_the_plain_dictionaries(order: int, num_documents: int) -> None:
    training, held_out = chain(num_documents, seed=1), chain(4, seed=2)
    plain = PlainKneserNey(training, order)
    wanted = []
    for document in held_out:
        padded = [BEGIN] * (order - 1) + document
        wanted.append(
            -sum(
                log2(plain.probability(padded[end - 1], tuple(padded[end - order : end - 1])))
                for end in range(order, len(padded) + 1)
            )
        )
    model = fit_ngram(training, vocab_size=VOCABULARY, begin_id=BEGIN, order=order)
    assert model.order == order
    np.testing.assert_allclose(model.document_bits(held_out), wanted, rtol=1e-12)


@pytest.mark.parametrize("context", [[], [2], [2, 3], [2, 3, 6, 11, 9], [1, 1, 1, 1], [9, 1, 2, 3]])
def test_probabilities_of_all_tokens_sum_to_one_and_none_is_zero(fitted: NgramModel, context: list[int]) -> None:
    distribution = fitted.distribution(context)
    assert distribution.shape == (VOCABULARY,)
    assert distribution.sum() == pytest.approx(1.0, abs=1e-12)
    assert (distribution > 0).all()


def test_a_documents_bits_are_its_tokens_surprises_one_after_another(fitted: NgramModel) -> None:
    document = chain(1, seed=7)[0]
    wanted = -sum(np.log2(fitted.distribution(document[:place])[token]) for place, token in enumerate(document))
    assert fitted.document_bits([[], document])[1] == pytest.approx(wanted)
    assert fitted.document_bits([[], document])[0] == 0.0


def test_documents_do_not_see_each_other() -> None:
    documents = [[2, 3, 4], [5, 6]]
    model = fit_ngram(documents, vocab_size=VOCABULARY, begin_id=BEGIN, order=3)
    together = model.document_bits(documents)
    alone = [model.document_bits([document])[0] for document in documents]
    np.testing.assert_allclose(together, alone)


def test_longer_contexts_read_a_text_better_that_has_them() -> None:
    training, held_out = chain(400, seed=1), chain(40, seed=2)
    num_drawn = sum(len(document) - 2 for document in held_out)  # every document begins with the same two
    bits = {
        order: fit_ngram(training, vocab_size=VOCABULARY, begin_id=BEGIN, order=order).document_bits(held_out).sum()
        for order in (1, 3)
    }
    entropy = -(0.6 * log2(0.6) + 2 * 0.2 * log2(0.2))  # of the steps that the chain draws
    assert entropy < bits[3] / num_drawn < entropy + 0.3 < bits[1] / num_drawn


def test_discounts_are_chen_and_goodmans_by_hand() -> None:
    counts = np.array([1] * 8 + [2] * 4 + [3] * 2 + [4] * 1, dtype=np.uint32)  # y = 8 / 16
    np.testing.assert_allclose(modified_discounts(counts), [0.0, 0.5, 1.25, 2.0])


@pytest.mark.parametrize(("vocab_size", "order"), [(2, 64), (4096, 5), (7131, 5), (7132, 4), (65_536, 4), (262_144, 3)])
def test_the_order_is_what_fits_into_64_bits(vocab_size: int, order: int) -> None:
    assert longest_order(vocab_size) == order
    assert vocab_size**order <= 2**64 < vocab_size ** (order + 1)


def test_ids_at_the_upper_end_of_a_large_vocabulary_do_not_overflow() -> None:
    documents = [[7130, 7129, 7130, 7130, 7130, 7130, 7129]]
    model = fit_ngram(documents, vocab_size=7131, begin_id=7130)
    assert model.order == 5
    assert model.distribution([7130, 7130, 7130, 7130]).argmax() in {7129, 7130}
    assert model.distribution([7130] * 4).sum() == pytest.approx(1.0)


def test_no_token_is_an_error() -> None:
    with pytest.raises(DataError, match="no token to count"):
        fit_ngram([[], []], vocab_size=VOCABULARY, begin_id=BEGIN)
