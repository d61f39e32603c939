"""Named seeds."""

import hashlib

import torch

from sanbai.foundation.seeds import derive_seed, numpy_generator, python_random, torch_generator


def test_a_seed_is_the_start_of_a_digest_without_its_top_bit() -> None:
    digest = hashlib.sha256(b"7/ppo/rollout/3").hexdigest()
    assert derive_seed(7, "ppo", "rollout", 3) == int(digest[:16], 16) // 2


def test_names_and_seeds_both_change_the_stream() -> None:
    streams = {derive_seed(seed, name) for seed in range(20) for name in ("a", "b", "a/b")}
    assert len(streams) == 60
    assert all(0 <= value < 2**63 for value in streams)


def test_the_same_name_gives_the_same_numbers_in_every_library() -> None:
    assert python_random(1, "x").random() == python_random(1, "x").random()
    assert numpy_generator(1, "x").random() == numpy_generator(1, "x").random()
    first, second = (torch.rand(4, generator=torch_generator(1, "x")) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.rand(4, generator=torch_generator(1, "y")))
