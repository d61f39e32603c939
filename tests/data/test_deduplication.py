from __future__ import annotations

import random
from itertools import pairwise

import networkx as nx
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sanbai.data.deduplication import Clusters, Shingles, candidate_groups, find_clusters, make_shingles, minhash

WORDS = [f"w{number}" for number in range(400)]


def plain_shingles(text: str, length: int) -> set[tuple[str, ...]]:
    words = text.split()
    if not words:
        return set()
    return {tuple(words[i : i + length]) for i in range(max(1, len(words) - length + 1))}


def plain_jaccard(left: str, right: str) -> float:
    a, b = plain_shingles(left, 5), plain_shingles(right, 5)
    return len(a & b) / len(a | b)


def edited_pairs(count: int) -> list[tuple[str, str]]:
    """Pairs of texts of 120 words with 0 to 9 words changed: Jaccard similarities from 1 down to about 0.5."""
    chance = random.Random(7)
    pairs = []
    for number in range(count):
        words = chance.choices(WORDS, k=120)
        other = list(words)
        for place in chance.sample(range(120), number % 10):
            other[place] = "changed" + str(chance.randrange(10**6))
        pairs.append((" ".join(words), " ".join(other)))
    return pairs


@given(st.lists(st.lists(st.sampled_from(WORDS[:6]), max_size=9).map(" ".join), max_size=6))
def test_shingles_are_those_of_a_plain_loop(documents: list[str]) -> None:
    shingles = make_shingles(documents, 5)
    sets = [plain_shingles(document, 5) for document in documents]
    assert [len(shingles.of(index)) for index in range(len(documents))] == [len(each) for each in sets]
    for left in range(len(documents)):
        for right in range(left):
            shared = np.intersect1d(shingles.of(left), shingles.of(right))
            assert len(shared) == len(sets[left] & sets[right])


def test_hashes_agree_as_often_as_the_sets_overlap() -> None:
    pairs = edited_pairs(200)
    signature = minhash(make_shingles([text for pair in pairs for text in pair], 5), 112)
    agree = (signature[0::2] == signature[1::2]).sum()
    similarity = np.array([plain_jaccard(*pair) for pair in pairs])
    expected = 112 * similarity.sum()
    spread = np.sqrt(112 * (similarity * (1 - similarity)).sum())
    assert abs(agree - expected) < 4 * spread


def test_candidates_are_found_as_often_as_the_formula_says() -> None:
    """Recall against exact Jaccard similarity by brute force: 1 - (1 - s^8)^14 a pair, within four binomial spreads."""
    pairs = edited_pairs(600)
    signature = minhash(make_shingles([text for pair in pairs for text in pair], 5), 112)
    met = {tuple(sorted(pair)) for group in candidate_groups(signature, 14) for pair in pairwise(group)}
    found = sum((2 * index, 2 * index + 1) in met for index in range(len(pairs)))
    similarity = np.array([plain_jaccard(*pair) for pair in pairs])
    probability = 1 - (1 - similarity**8) ** 14
    spread = np.sqrt((probability * (1 - probability)).sum())
    assert abs(found - probability.sum()) < 4 * spread
    assert spread > 3, "the pairs lie where the formula is in doubt"


def clusters_of(documents: list[str], threshold: float = 0.8) -> list[int]:
    roots = find_clusters(documents, shingle_words=5, num_buckets=14, hashes_per_bucket=8, threshold=threshold)
    return roots.tolist()


def test_no_pair_below_the_threshold_is_joined_and_nearly_all_above_are() -> None:
    pairs = edited_pairs(400)
    roots = clusters_of([text for pair in pairs for text in pair])
    similar = [plain_jaccard(*pair) >= 0.8 for pair in pairs]
    joined = [roots[2 * index] == roots[2 * index + 1] for index in range(len(pairs))]
    assert not any(j and not s for j, s in zip(joined, similar, strict=True))
    assert sum(joined) > 0.95 * sum(similar)


def test_the_threshold_itself_counts_and_just_above_does_not() -> None:
    words = WORDS[:30]
    pair = [" ".join(words[:28]), " ".join(words[:30])]  # 24 runs of 26 are shared
    assert plain_jaccard(*pair) == 24 / 26
    assert clusters_of(pair, 24 / 26) == [0, 0]
    assert clusters_of(pair, 24 / 26 + 1e-9) == [0, 1]


def test_documents_shorter_than_a_run_match_only_as_wholes() -> None:
    assert clusters_of(["a b c", "a b c", "a b d", "", "", "a b"]) == [0, 0, 2, 3, 4, 5]


def test_a_huge_group_of_copies_is_one_cluster() -> None:
    text = " ".join(WORDS[:50])
    assert clusters_of([text] * 500) == [0] * 500


@given(st.integers(1, 20).flatmap(lambda n: st.lists(st.tuples(st.integers(0, n), st.integers(0, n)), max_size=25)))
def test_clusters_are_the_connected_components(edges: list[tuple[int, int]]) -> None:
    clusters = Clusters(21)
    graph = nx.empty_graph(21)
    for left, right in edges:
        clusters.join(left, right)
        graph.add_edge(left, right)
    for component in nx.connected_components(graph):
        assert {clusters.find(item) for item in component} == {min(component)}


def test_documents_without_runs_keep_the_largest_value() -> None:
    empty = Shingles(np.empty(0, dtype=np.uint64), np.zeros(3, dtype=np.int64))
    assert (minhash(empty, 4) == 2**32 - 1).all()
