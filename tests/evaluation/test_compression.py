"""xz against the program itself, and against texts whose information is known."""

from __future__ import annotations

import random
import shutil
import subprocess

import pytest

from sanbai.evaluation.compression import compress_held_out, xz_size
from sanbai.foundation.errors import DataError, Interrupted


def noise(num_bytes: int, seed: int) -> bytes:
    """Return text of 6 bits a character: nothing can shorten it below 6/8."""
    alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-"
    return "".join(random.Random(seed).choices(alphabet, k=num_bytes)).encode()


@pytest.mark.skipif(shutil.which("xz") is None, reason="the program xz is not installed")
def test_the_size_is_that_of_the_program() -> None:
    texts = [noise(5_000, 1), "水车在村子的东边。".encode() * 50, b"the cow gave milk " * 100]
    program = subprocess.run(["xz", "-9e", "-c"], input=b"".join(texts), capture_output=True, check=True)
    assert xz_size(texts) == pytest.approx(len(program.stdout), abs=16)


def test_noise_costs_its_information_whatever_was_read_before() -> None:
    found = compress_held_out([noise(40_000, 2)], [noise(40_000, 3)])
    assert 6.0 <= found.alone < 6.3
    assert 6.0 <= found.after_training < 6.3
    assert (found.num_bytes, found.training_bytes) == (40_000, 40_000)


def test_what_was_read_before_costs_next_to_nothing_again() -> None:
    text = noise(40_000, 4)
    found = compress_held_out([text], [b"something else", text])
    assert found.alone > 6.0
    assert found.after_training < 0.05


def test_sizes_do_not_depend_on_how_texts_are_handed_over() -> None:
    text = noise(3_000_000, 5)
    assert xz_size([text[:10], text[10:2_000_000], text[2_000_000:]]) == xz_size([text])


def test_no_held_out_text_is_an_error() -> None:
    with pytest.raises(DataError, match="no held-out text to compress"):
        compress_held_out([b""], [b"something"])


def test_a_stop_is_heard_between_two_megabytes() -> None:
    def stop() -> None:
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        compress_held_out([noise(10, 6)], [noise(3_000_000, 6)], on_chunk=stop)
