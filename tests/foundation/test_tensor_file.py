"""The file against the library's bytes, and its atomicity."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save
from torch import Tensor

from sanbai.foundation.tensor_file import save_tensors

DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
]  # fmt: skip
Shapes = st.lists(st.integers(0, 4), max_size=3)
Names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda name: name != "__metadata__")


@given(
    described=st.dictionaries(Names, st.tuples(st.sampled_from(DTYPES), Shapes), max_size=8),
    state=st.text(st.characters(exclude_categories=["Cs"])),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_the_bytes_are_those_of_the_library(
    described: dict[str, tuple[torch.dtype, list[int]]], state: str, tmp_path: Path
) -> None:
    tensors = {name: (torch.rand(shape) * 90).to(dtype) for name, (dtype, shape) in described.items()}
    save_tensors(tmp_path / "file", tensors, metadata={"state": state})
    assert (tmp_path / "file").read_bytes() == save(tensors, metadata={"state": state})


def test_views_and_shared_tensors_are_saved_as_what_they_show(tmp_path: Path) -> None:
    whole = torch.arange(24.0).view(4, 6)
    views: dict[str, Tensor] = {"turned": whole.t(), "rows": whole[1:3], "every_second": whole[:, ::2], "again": whole}
    learned = torch.nn.Parameter(whole)
    save_tensors(tmp_path / "file", {**views, "learned": learned}, metadata={"format": "pt"})
    found = load_file(tmp_path / "file")
    assert found.keys() == {*views, "learned"}
    for name, view in {**views, "learned": whole}.items():
        assert torch.equal(found[name], view)


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tensors(tmp_path / "file", {"a": torch.ones(2)}, metadata={})

    def fail(_: Tensor) -> Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(Tensor, "contiguous", fail)
    with pytest.raises(KeyboardInterrupt):
        save_tensors(tmp_path / "file", {"a": torch.zeros(2)}, metadata={})
    monkeypatch.undo()
    assert torch.equal(load_file(tmp_path / "file")["a"], torch.ones(2))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
