"""The same weights in the reference class of transformers give the same logits, loss and gradients.

Errors are relative: the largest difference over the largest number. 1e-4 in float32. In float64 1e-8; the references'
root-mean-square norms, which compute in float32 whatever they are given, are torch's own there. Where scores, rotary
tables, a router or the loss are still float32 in the reference, 1e-6.
`make parity` writes what is measured here to docs/parity.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.model.families import (
    FAMILIES,
    VOCABULARY,
    Batch,
    Family,
    ask_ours,
    ask_reference,
    compute_in_double,
    default_dtype,
    loss_labels,
    make_reference,
    our_loss,
    ragged_batch,
    real_outputs,
    reference_outputs,
)
from torch import Tensor

from sanbai.generation.answering import answer_all
from sanbai.generation.engine import ContinuousEngine, EngineSettings
from sanbai.generation.request import Request
from sanbai.generation.sampling import Sampling
from sanbai.model.hugging_face import load_model, save_model

transformers = pytest.importorskip("transformers")

FAMILY = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
SIDE = pytest.mark.parametrize("side", ["left", "right"])
DTYPE = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])

Check = Callable[[str, Tensor, Tensor], None]
EVERYTHING = torch.ones(VOCABULARY, dtype=torch.bool)


@pytest.fixture
def check(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Check:
    """Assert the relative error and note it for the table; the column is the test's, the row its family."""
    family: Family = request.getfixturevalue("family")
    dtype = request.node.callspec.params.get("dtype", torch.float32)

    def compare(name: str, found: Tensor, expected: Tensor) -> None:
        allowed = 1e-4 if dtype == torch.float32 else family.double if expected.dtype == dtype else 1e-6
        assert found.shape == expected.shape, name
        assert found.isfinite().all(), name
        error = ((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6)).item()
        record_property(str(dtype).removeprefix("torch."), error)
        assert error <= allowed, f"{name}: {error:.1e}"

    return compare


def pair(family: Family, folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """The reference, and ours as read from the folder that the reference wrote."""
    make_reference(family, transformers).save_pretrained(folder)
    with default_dtype(dtype):
        kind = getattr(transformers, family.architecture)
        theirs = kind.from_pretrained(folder, dtype=dtype, experts_implementation="eager")
    if dtype == torch.float64:
        compute_in_double(theirs)
    return theirs.eval(), load_model(folder, dtype=dtype)


@FAMILY
@SIDE
@DTYPE
def test_logits(family: Family, side: str, dtype: torch.dtype, check: Check, tmp_path: Path) -> None:
    theirs, ours = pair(family, tmp_path, dtype)
    batch = ragged_batch(side)
    with torch.no_grad():
        expected = reference_outputs(ask_reference(family, theirs, batch))
        found = ask_ours(family, ours, batch)
    check("logits", real_outputs(family, found, batch), real_outputs(family, expected, batch))


@pytest.mark.parametrize("family", [family for family in FAMILIES if family.learns], ids=lambda family: family.name)
@DTYPE
def test_loss(family: Family, dtype: torch.dtype, check: Check, tmp_path: Path) -> None:
    theirs, ours = pair(family, tmp_path, dtype)
    # A span's softmax is over padding too, in the reference, and what stands there is not comparable.
    batch = ragged_batch("none" if family.architecture.endswith("QuestionAnswering") else "right")
    labels = loss_labels(family, batch)
    expected = ask_reference(family, theirs, batch, **labels)["loss"]
    check("loss", our_loss(family, ask_ours(family, ours, batch), labels), expected)


@FAMILY
@SIDE
@DTYPE
def test_gradients(family: Family, side: str, dtype: torch.dtype, check: Check, tmp_path: Path) -> None:
    theirs, ours = pair(family, tmp_path, dtype)
    batch = ragged_batch(side)
    found = real_outputs(family, ask_ours(family, ours, batch), batch)
    expected = real_outputs(family, reference_outputs(ask_reference(family, theirs, batch)), batch)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3), dtype=dtype)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for model in (ours, theirs):  # gradients take the parameters' places, and so the names they have in files
        for parameter in model.parameters():
            parameter.data = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    (tmp_path / "ours").mkdir()
    save_model(ours, tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    found, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs"))
    for name, gradient in found.items():
        if expected[name].abs().max() > 1e-6 * weights.abs().sum():  # a key's bias has none but rounding
            check(name, gradient, expected[name])


@pytest.mark.parametrize("family", [family for family in FAMILIES if family.writes], ids=lambda family: family.name)
@SIDE
@DTYPE
def test_cache(family: Family, side: str, dtype: torch.dtype, check: Check, tmp_path: Path) -> None:
    theirs, ours = pair(family, tmp_path, dtype)
    batch = ragged_batch(side)
    if family.encodes:
        first = (batch.written_real.cumsum(1) == 1) & batch.written_real.bool()
        batch = replace(batch, written=batch.written.masked_fill(first, ours.config.start_token))
    with torch.no_grad():
        (expected,) = reference_outputs(ask_reference(family, theirs, batch))
    real = (batch.written_real if family.encodes else batch.real).bool()
    check("log-probabilities", decode_by_steps(family, ours, batch), expected[real].log_softmax(dim=-1))


def decode_by_steps(family: Family, model: Any, batch: Batch) -> Tensor:
    """Let the engine read the texts' first three tokens, two a step, and write the rest as given; return what it thinks
    of each next token."""
    settings = EngineSettings(num_blocks=32, block_size=4, max_rows=4, step_tokens=5)
    engine = ContinuousEngine(model, settings)
    requests = []
    for row, real in enumerate(batch.real):
        text = batch.tokens[row, real.bool()].tolist()
        prompt, rest = text[:3], text[3:]
        if family.encodes:
            prompt, rest = text, batch.written[row, batch.written_real[row].bool()].tolist()[1:]

        def as_given(answer: Sequence[int], rest: Sequence[int] = rest) -> Tensor:
            return torch.arange(VOCABULARY) == rest[len(answer)] if len(answer) < len(rest) else EVERYTHING

        sampling = Sampling(temperature=0.0, max_new_tokens=len(rest) + 1)
        requests.append(
            Request(
                prompt=prompt, sampling=sampling, seeds=[0], mask=as_given, top_logprobs=VOCABULARY,
                prompt_logprobs=not family.encodes,
            )
        )  # fmt: skip
    answers = [answer for (answer,) in answer_all(engine, requests)]
    thought = [top for answer in answers for top in [*(answer.prompt.top if answer.prompt else ()), *answer.top]]
    return torch.tensor(
        [[logprob for _, logprob in sorted(top)] for top in thought], dtype=next(model.parameters()).dtype
    )


def test_the_page_has_a_row_for_every_family_and_none_failed() -> None:
    page = (Path(__file__).parents[2] / "docs/parity.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert rows == ["family", *(family.name for family in FAMILIES)]
    assert "failed" not in page


@FAMILY
def test_import(family: Family, tmp_path: Path) -> None:
    """In one file or in shards, each number of the reference is one of ours: what we write back is what it wrote."""
    theirs = make_reference(family, transformers)
    for name, options in (("whole", {}), ("shards", {"max_shard_size": "40KB"})):
        theirs.save_pretrained(tmp_path / name, **options)
        (tmp_path / name / "ours").mkdir()
        save_model(load_model(tmp_path / name), tmp_path / name / "ours")
        written = {
            key: value for path in (tmp_path / name).glob("*.safetensors") for key, value in load_file(path).items()
        }
        again = load_file(tmp_path / name / "ours" / "model.safetensors")
        unread = {key for key in written.keys() - again.keys() if "pooler" not in key and ".decoder." not in key}
        assert not unread
        assert all(torch.equal(again[key], written[key]) for key in again)
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1


@FAMILY
def test_export(family: Family, check: Check, tmp_path: Path) -> None:
    """transformers loads what we write without a missing or surplus tensor, and says the same."""
    theirs = make_reference(family, transformers)
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    (tmp_path / "ours").mkdir()
    save_model(ours, tmp_path / "ours")
    kind = getattr(transformers, family.architecture)
    again, report = kind.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert load_model(tmp_path / "ours").config == ours.config
    batch = ragged_batch("right")
    with torch.no_grad():
        first, second = (
            real_outputs(family, reference_outputs(ask_reference(family, model.eval(), batch)), batch)
            for model in (theirs, again)
        )
    check("logits", second, first)
