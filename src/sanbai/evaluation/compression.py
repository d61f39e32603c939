"""What `xz -9e` makes of held-out text: the yardstick that everybody has at hand.

Two figures. *Alone*, the program sees the held-out text and nothing else. *After the training text*, it is charged
size(training + held out) - size(training): what the held-out text adds to an archive that holds the training text
already, which is the fair comparison with a model that has read it. xz remembers the last 64 MiB before each byte; of
a longer training text it profits only that far. Documents follow each other without a separator, so that every bit
is paid for a byte of text.
"""

from __future__ import annotations

import lzma
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

from sanbai.foundation.errors import DataError

PRESET = 9 | lzma.PRESET_EXTREME
#: Bytes handed over at once; large enough that the call's cost vanishes.
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Compression:
    """Bits per byte of held-out text by xz.

    Attributes:
        alone: 8 · size(held out) / bytes, the container's about 70 bytes included.
        after_training: 8 · (size(training + held out) - size(training)) / bytes.
        num_bytes: of the held-out text.
        training_bytes: of the training text.
    """

    alone: float
    after_training: float
    num_bytes: int
    training_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Plain values for `evaluation.json`."""
        return {
            "alone": self.alone,
            "after_training": self.after_training,
            "num_bytes": self.num_bytes,
            "training_bytes": self.training_bytes,
        }


def compress_held_out(
    held_out: Sequence[bytes], training: Sequence[bytes], *, on_chunk: Callable[[], None] = lambda: None
) -> Compression:
    """Measure xz on held-out documents, alone and after the training documents.

    The two long archives are written at once where there are two cores; each takes 0.7 GB and about a minute for
    60 MB.

    Args:
        held_out: texts that no model was trained on.
        training: the texts that the models have read.
        on_chunk: called, from two threads, after every megabyte; may raise to stop.

    Raises:
        DataError: there is no held-out text.
    """
    num_bytes = sum(map(len, held_out))
    if num_bytes == 0:
        raise DataError("no held-out text to compress; give the corpus a larger held-out share")
    with ThreadPoolExecutor(max_workers=2) as pool:  # lzma lets go of the interpreter while it works
        before = pool.submit(xz_size, training, on_chunk=on_chunk)
        both = pool.submit(xz_size, chain(training, held_out), on_chunk=on_chunk)
        alone = xz_size(held_out, on_chunk=on_chunk)
        added = both.result() - before.result()
    return Compression(
        alone=8 * alone / num_bytes,
        after_training=8 * added / num_bytes,
        num_bytes=num_bytes,
        training_bytes=sum(map(len, training)),
    )


def xz_size(texts: Iterable[bytes], *, on_chunk: Callable[[], None] = lambda: None) -> int:
    """Return the bytes that `xz -9e` makes of the texts in a row."""
    compressor = lzma.LZMACompressor(format=lzma.FORMAT_XZ, preset=PRESET)
    size = 0
    for chunk in _chunks(texts):
        size += len(compressor.compress(chunk))
        on_chunk()
    return size + len(compressor.flush())


def _chunks(texts: Iterable[bytes]) -> Iterator[bytes]:
    waiting: list[bytes] = []
    size = 0
    for text in texts:
        waiting.append(text)
        size += len(text)
        if size >= CHUNK_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)
