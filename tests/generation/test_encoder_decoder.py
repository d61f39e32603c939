"""Answers of encoder-decoders against transformers.generate, against rows run alone, and against full passes."""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.model.families import FAMILIES, VOCABULARY, Family, make_reference

from sanbai.foundation.errors import DataError, ModelError
from sanbai.generation.answering import generate
from sanbai.generation.sampling import Sampling
from sanbai.model.config import ModelConfig
from sanbai.model.encoder_decoder import EncoderDecoder
from sanbai.model.hugging_face import load_model

transformers = pytest.importorskip("transformers")
WRITERS = [family for family in FAMILIES if family.encodes]
STOP = {7, 11}
#: Two likeliest tokens this close may change places by rounding.
TIE = 1e-4


def open_both(family: Family, folder: Path, *, start: int = 0) -> tuple[Any, EncoderDecoder]:
    """Return a reference with random weights, large enough that answers differ from row to row, and ours."""
    theirs = make_reference(
        replace(family, settings={**family.settings, "decoder_start_token_id": start}), transformers
    )
    theirs.save_pretrained(folder)
    model = load_model(folder)
    assert isinstance(model, EncoderDecoder)
    return theirs, model


def make_sources(count: int = 8) -> list[list[int]]:
    generator = torch.Generator().manual_seed(2)
    lengths = torch.randint(1, 14, (count,), generator=generator).tolist()
    return [torch.randint(12, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def pad(sources: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, sources))
    tokens = torch.tensor([[*source, *[0] * (width - len(source))] for source in sources])
    real = torch.tensor([[1] * len(source) + [0] * (width - len(source)) for source in sources])
    return tokens, real


@pytest.mark.parametrize("family", WRITERS, ids=lambda family: family.name)
@pytest.mark.parametrize("start", [0, 5])
def test_greedy_tokens_are_those_of_transformers(family: Family, start: int, tmp_path: Path) -> None:
    theirs, model = open_both(family, tmp_path, start=start)
    sources = make_sources()
    tokens, real = pad(sources)
    ours = generate(
        model, sources, Sampling(temperature=0.0, max_new_tokens=20), seeds=range(8), stop_ids=STOP, batch_size=5
    )
    expected = theirs.generate(
        tokens, attention_mask=real, do_sample=False, max_new_tokens=20, eos_token_id=sorted(STOP), pad_token_id=0,
        use_cache=False, output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    num_equal = 0
    for row, completion in enumerate(ours):
        # Behind its end a row of theirs is padding, and so is nothing of ours.
        pairs = zip_longest(completion.tokens, expected.sequences[row, 1:].tolist(), fillvalue=0)
        differing = next((step for step, (found, wanted) in enumerate(pairs) if found != wanted), None)
        num_equal += differing is None
        if differing is not None:
            best = expected.logits[differing][row].topk(2).values
            assert best[0] - best[1] < TIE, f"row {row}, step {differing}"
    assert num_equal >= 6
    assert len({tuple(completion.tokens) for completion in ours}) > 1, "answers that follow what was read"


@pytest.mark.parametrize("family", [WRITERS[0], WRITERS[-1]], ids=lambda family: family.name)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_row_does_not_depend_on_the_rest_of_the_batch(family: Family, temperature: float, tmp_path: Path) -> None:
    _, model = open_both(family, tmp_path)
    model.double()
    sources = make_sources()
    sources += sources[:3]
    sampling = Sampling(temperature=temperature, top_p=0.9, max_new_tokens=12)
    together = generate(model, sources, sampling, seeds=range(100, 111), stop_ids=STOP)
    for index, source in enumerate(sources):
        (alone,) = generate(model, [source], sampling, seeds=[100 + index], stop_ids=STOP)
        assert alone.tokens == together[index].tokens
        assert alone.logprobs == pytest.approx(together[index].logprobs, abs=1e-6)


@pytest.mark.parametrize("family", WRITERS, ids=lambda family: family.name)
def test_logprobs_are_those_of_one_pass_without_a_cache(family: Family, tmp_path: Path) -> None:
    _, model = open_both(family, tmp_path)
    sources = make_sources(4)
    for source, completion in zip(
        sources,
        generate(model, sources, Sampling(max_new_tokens=10), seeds=range(4), stop_ids=STOP),
        strict=True,
    ):
        given = torch.tensor([[model.config.start_token, *completion.tokens[:-1]]])
        with torch.no_grad():
            logprobs = model(torch.tensor([source]), given)[0].log_softmax(-1)
        expected = logprobs.gather(-1, torch.tensor(completion.tokens).unsqueeze(-1)).squeeze(-1).tolist()
        assert completion.logprobs == pytest.approx(expected, abs=1e-4)


def test_what_was_read_is_encoded_and_projected_once(tmp_path: Path) -> None:
    _, model = open_both(WRITERS[0], tmp_path)
    calls: list[str] = []
    for name, module in [
        ("encoder", model.encoder),
        *(
            (f"memory {n}", block.get_submodule("cross.key_value"))
            for n, block in enumerate(model.decoder.trunk.blocks)
        ),
    ]:
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    generate(model, [[20, 30]] * 3, Sampling(max_new_tokens=6), seeds=range(3), stop_ids=())
    assert sorted(calls) == ["encoder", "memory 0", "memory 1", "memory 2"]


def test_answers_may_be_longer_than_a_context_that_relative_positions_do_not_have() -> None:
    shape = {"num_layers": 1, "encoder_layers": 1, "width": 16, "num_heads": 2, "num_kv_heads": 2, "head_width": 8}
    fields = {**shape, "vocab_size": 30, "feed_forward_width": 16, "max_positions": 6}
    relative, learned = (
        EncoderDecoder(ModelConfig(**fields, positions=positions), torch.Generator().manual_seed(1)).eval()
        for positions in ("relative", "learned")
    )
    sampling = Sampling(max_new_tokens=9)
    assert len(generate(relative, [[3] * 8], sampling, seeds=[1], stop_ids=())[0].tokens) == 9
    (answer,) = generate(learned, [[3] * 6], sampling, seeds=[1], stop_ids=())
    assert (len(answer.tokens), answer.finish_reason) == (6, "length")
    with pytest.raises(ModelError, match="prompt 1 has 7 tokens and the encoder reads 6"):
        generate(learned, [[3], [3] * 7], sampling, seeds=[1, 2], stop_ids=())
    with pytest.raises(DataError, match="has no token"):
        generate(relative, [[]], sampling, seeds=[1], stop_ids=())
