"""Streams against the whole answer: the same tokens, the same text, cut only where it may be."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sanbai.foundation.errors import ModelError
from sanbai.generation.engine import generate
from sanbai.generation.sampling import Sampling
from sanbai.generation.streaming import StopStrings, stream
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel
from sanbai.text.tokenizer import Tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the bread of Ann is good, 三百首 poems"] * 4, vocab_size=290)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> LanguageModel:
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, num_layers=2, width=48, num_heads=4, num_kv_heads=2, head_width=16,
        feed_forward_width=80, max_positions=64,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    model = LanguageModel(config, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model.eval()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_stream_is_the_whole_answer_in_pieces(model: LanguageModel, tokenizer: Tokenizer, temperature: float) -> None:
    sampling = Sampling(temperature=temperature, top_p=0.95, max_new_tokens=40)
    prompt = tokenizer.encode("the bread")
    for seed in range(12):
        stops = {tokenizer.reserved.end, *range(20, 24)}
        (whole,) = generate(model, [prompt], sampling, seeds=[seed], stop_ids=stops)
        pieces = list(stream(model, prompt, sampling, seed=seed, stop_ids=stops, tokenizer=tokenizer))
        assert [piece.token for piece in pieces] == whole.tokens
        assert [piece.logprob for piece in pieces] == pytest.approx(whole.logprobs, abs=1e-5)
        assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + [whole.finish_reason]
        assert "".join(piece.text for piece in pieces) == tokenizer.decode(whole.tokens)


def test_an_answer_ends_before_a_stop_string(model: LanguageModel, tokenizer: Tokenizer) -> None:
    sampling = Sampling(max_new_tokens=50)
    prompt = tokenizer.encode("Ann")
    cut = 0
    for seed in range(10):
        (whole,) = generate(model, [prompt], sampling, seeds=[seed], stop_ids=())
        text = tokenizer.decode(whole.tokens)
        stop = text[10:13]
        pieces = list(
            stream(model, prompt, sampling, seed=seed, stop_ids=(), tokenizer=tokenizer, stop_strings=[stop, "", "zzz"])
        )
        assert "".join(piece.text for piece in pieces) == text[: text.index(stop)]
        assert pieces[-1].finish_reason == "stop"
        cut += len(pieces) < len(whole.tokens)
    assert cut == 10


def test_closing_a_stream_stops_the_model(
    model: LanguageModel, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    forward = model.trunk.forward

    def counted(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.trunk, "forward", counted)
    pieces = stream(model, [8, 9], Sampling(max_new_tokens=50), seed=1, stop_ids=(), tokenizer=tokenizer)
    next(pieces)
    next(pieces)
    pieces.close()
    assert calls == 2
    assert list(pieces) == []


def test_gradients_stay_on_for_the_caller_between_pieces(model: LanguageModel, tokenizer: Tokenizer) -> None:
    for _ in stream(model, [8, 9], Sampling(max_new_tokens=3), seed=1, stop_ids=(), tokenizer=tokenizer):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


def test_a_prompt_that_is_too_long_is_refused_before_the_first_piece(
    model: LanguageModel, tokenizer: Tokenizer
) -> None:
    with pytest.raises(ModelError, match="no room is left"):
        stream(model, [8] * 64, Sampling(), seed=1, stop_ids=(), tokenizer=tokenizer)


@settings(deadline=None)
@given(
    st.lists(st.text("abc", max_size=4), max_size=12),
    st.lists(st.text("abc", max_size=4), max_size=3),
)
def test_stop_strings_cut_any_text_in_any_pieces_as_a_search_of_the_whole_does(
    pieces: list[str], strings: list[str]
) -> None:
    stops = StopStrings(strings)
    shown = []
    for piece in pieces:
        shown.append(stops.push(piece))
        if stops.found:
            break
    shown.append(stops.finish())
    whole, text = "".join(pieces), "".join(shown)
    wanted = [string for string in strings if string]
    assert stops.found == any(string in whole for string in wanted)
    assert whole.startswith(text)
    assert not any(string in text for string in wanted)
    assert text == whole or any(whole[len(text) :].startswith(string) for string in wanted)
