"""Duplicates: exact by hash, near by MinHash with every candidate checked exactly, clusters by union-find.

Signature as FineWeb's (Penedo et al. 2024, arXiv:2406.17557): runs of 5 words, 14 buckets of 8 hashes. Departures: a
pair that meets in a bucket counts only if its true Jaccard similarity reaches the threshold, so nothing is lost to a
collision; and of a cluster the longest document is kept, not a random one. Clusters are the connected components of the
checked pairs: the order of the documents does not enter.

Shapes: D documents, N runs of words, K hashes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sanbai.data.words import Hashes, Indices, WordTable, batch_texts, fixed_constants, hash_words, mix

#: Runs hashed at once: the working arrays stay in the processor's second cache.
_CHUNK_RUNS = 1 << 14


@dataclass(frozen=True, slots=True)
class Shingles:
    """The runs of words of D documents, as hashes: document d has `hashes_N[bounds[d] : bounds[d + 1]]`."""

    hashes_N: Hashes
    bounds: Indices

    def of(self, document: int) -> Hashes:
        """Return a document's runs as a sorted set."""
        return np.unique(self.hashes_N[self.bounds[document] : self.bounds[document + 1]])


def make_shingles(fingerprints: Sequence[str], length: int) -> Shingles:
    """Return every run of `length` words of each document; a shorter document is one run, an empty one none."""
    hashes: list[Hashes] = []
    counts: list[Indices] = []
    for _, batch in batch_texts(fingerprints):
        words = hash_words(batch)
        hash_N, document_N = _runs_or_whole(words, length)
        hashes.append(hash_N)
        counts.append(np.bincount(document_N, minlength=words.num_documents))
    empty = np.empty(0, dtype=np.int64)
    bounds = np.concatenate([[0], np.cumsum(np.concatenate(counts or [empty]))]).astype(np.int64)
    return Shingles(np.concatenate(hashes or [empty.astype(np.uint64)]), bounds)


def _runs_or_whole(words: WordTable, length: int) -> tuple[Hashes, Indices]:
    """Return hash and document of the runs, in the order of the documents, with short documents as one run each."""
    hash_N, start_N = words.runs(length)
    document_N = words.document_W[start_N]
    num_words = np.diff(words.bounds)
    extra_hashes, extra_documents = [hash_N], [document_N]
    for short in range(1, length):
        documents = np.flatnonzero(num_words == short)
        if len(documents) == 0:
            continue
        hash_S, start_S = words.runs(short)
        extra_hashes.append(hash_S[np.searchsorted(start_S, words.bounds[documents])])
        extra_documents.append(documents)
    document_N = np.concatenate(extra_documents)
    order = np.argsort(document_N, kind="stable")
    return np.concatenate(extra_hashes)[order], document_N[order]


def minhash(shingles: Shingles, num_hashes: int) -> NDArray[np.uint32]:
    """Return (D, num_hashes): the least value over a document's runs of each of `num_hashes` functions.

    h_k(x) = a_k x + b_k mod 2^32 on the upper 32 bits of a run's hash, a_k odd (a permutation). Two documents agree in
    a hash with probability equal to their Jaccard similarity. Documents without runs keep the largest value throughout.
    """
    num_documents = len(shingles.bounds) - 1
    constants = fixed_constants(2, 2 * num_hashes).astype(np.uint32)
    factors, offsets = constants[:num_hashes] | np.uint32(1), constants[num_hashes:]
    runs_N = (shingles.hashes_N >> np.uint64(32)).astype(np.uint32)
    signature_KD = np.full((num_hashes, num_documents), np.iinfo(np.uint32).max, dtype=np.uint32)
    filled = np.flatnonzero(np.diff(shingles.bounds))
    first = 0
    while first < len(filled):
        begin = shingles.bounds[filled[first]]
        last = max(first + 1, int(np.searchsorted(shingles.bounds[filled + 1], begin + _CHUNK_RUNS, "right")))
        documents = filled[first:last]
        chunk = runs_N[begin : shingles.bounds[documents[-1] + 1]]
        starts = shingles.bounds[documents] - begin
        hashed = np.empty_like(chunk)
        for k in range(num_hashes):
            np.multiply(chunk, factors[k], out=hashed)
            np.add(hashed, offsets[k], out=hashed)
            signature_KD[k, documents] = np.minimum.reduceat(hashed, starts)
        first = last
    return signature_KD.T


def candidate_groups(signature_DK: NDArray[np.uint32], num_buckets: int) -> Iterator[Indices]:
    """Yield, bucket by bucket, the documents that agree in all hashes of the bucket, two or more at a time."""
    width = signature_DK.shape[1] // num_buckets
    factors = fixed_constants(3, width)
    for bucket in range(num_buckets):
        hashes = signature_DK[:, bucket * width : (bucket + 1) * width].astype(np.uint64)
        keys = mix((mix(hashes * factors) * factors).sum(axis=1, dtype=np.uint64))
        order = np.argsort(keys, kind="stable")
        same_as_next = np.concatenate([[False], np.diff(keys[order]) == 0, [False]])
        begins = np.flatnonzero(~same_as_next[:-1] & same_as_next[1:])
        ends = np.flatnonzero(same_as_next[:-1] & ~same_as_next[1:]) + 1
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
            yield order[begin:end]


def jaccard(left: Hashes, right: Hashes) -> float:
    """Return |left and right| / |left or right| of two sorted sets."""
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / (len(left) + len(right) - shared)


def find_clusters(
    fingerprints: Sequence[str],
    *,
    shingle_words: int,
    num_buckets: int,
    hashes_per_bucket: int,
    threshold: float,
) -> Indices:
    """Return, a document, the least index among its near-duplicates, itself included.

    Two documents are joined when they meet in a bucket and their Jaccard similarity is `threshold` or more.
    """
    shingles = make_shingles(fingerprints, shingle_words)
    signature_DK = minhash(shingles, num_buckets * hashes_per_bucket)
    has_runs = np.diff(shingles.bounds) > 0
    clusters = Clusters(len(fingerprints))
    sets: dict[int, Hashes] = {}
    different: set[tuple[int, int]] = set()
    for group in candidate_groups(signature_DK, num_buckets):
        members = [document for document in group.tolist() if has_runs[document]]
        for document in members:
            if document not in sets:
                sets[document] = shingles.of(document)
        for index, left in enumerate(members):
            for right in members[index + 1 :]:
                if (left, right) in different or clusters.find(left) == clusters.find(right):
                    continue
                if jaccard(sets[left], sets[right]) >= threshold:
                    clusters.join(left, right)
                else:
                    different.add((left, right))
    return np.array([clusters.find(document) for document in range(len(fingerprints))], dtype=np.int64)


class Clusters:
    """Union-find over D items; the root of a set is its least member."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def find(self, item: int) -> int:
        """Return the least member of the item's set, halving the path on the way."""
        parent = self._parent
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def join(self, left: int, right: int) -> None:
        """Make one set of two."""
        least, other = sorted((self.find(left), self.find(right)))
        self._parent[other] = least
