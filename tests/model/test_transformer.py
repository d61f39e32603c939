"""Laws of the Transformer: causality, segments, padding, cache, counts of parameters."""

from __future__ import annotations

import pytest
import torch

from sanbai.foundation import device
from sanbai.foundation.errors import ModelError, RecipeError
from sanbai.foundation.recipe import validate_recipe
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.model.presets import PRESETS

LLAMA = ModelConfig(
    vocab_size=61, num_layers=2, width=48, num_heads=4, num_kv_heads=2, head_width=16, feed_forward_width=80,
    max_positions=256,
)  # fmt: skip
GPT2 = ModelConfig(
    vocab_size=61, num_layers=2, width=48, num_heads=4, num_kv_heads=4, head_width=12, feed_forward_width=192,
    feed_forward="gelu_tanh", norm="layer", norm_epsilon=1e-5, positions="learned", max_positions=256, bias=True,
)  # fmt: skip
CONFIGS = pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
GRADIENT = pytest.mark.parametrize("with_gradient", [False, True], ids=["inference", "training"])


def make_model(config: ModelConfig) -> LanguageModel:
    generator = torch.Generator().manual_seed(1)
    model = LanguageModel(config, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.double()


def random_tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 61, shape, generator=torch.Generator().manual_seed(2))


@CONFIGS
@GRADIENT
def test_a_later_token_never_changes_an_earlier_prediction(config: ModelConfig, with_gradient: bool) -> None:
    model, tokens = make_model(config), random_tokens(2, 150)
    changed = tokens.clone()
    changed[:, 100:] = (changed[:, 100:] + 1) % 61
    with torch.set_grad_enabled(with_gradient):
        before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :100], after[:, :100], rtol=0, atol=1e-12)
    assert not torch.allclose(before[:, 100], after[:, 100])


@CONFIGS
@GRADIENT
def test_packed_documents_are_read_as_if_each_were_alone(config: ModelConfig, with_gradient: bool) -> None:
    model, tokens = make_model(config), random_tokens(1, 150)
    lengths = [70, 1, 60, 19]
    segments = torch.cat([torch.full((length,), index + 1) for index, length in enumerate(lengths)])[None]
    with torch.set_grad_enabled(with_gradient):
        packed = model(tokens, segments_BT=segments)[0]
        alone = torch.cat([model(part)[0] for part in tokens.split(lengths, dim=1)])
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-12)


@CONFIGS
@GRADIENT
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_real_number_and_is_itself_finite(
    config: ModelConfig, with_gradient: bool, side: str
) -> None:
    model, tokens = make_model(config), random_tokens(1, 20)
    padding = torch.full((1, 90), 7)
    real, fill = torch.ones_like(tokens), torch.zeros_like(padding)
    row, segments = (
        (torch.cat((padding, tokens), 1), torch.cat((fill, real), 1))
        if side == "left"
        else (torch.cat((tokens, padding), 1), torch.cat((real, fill), 1))
    )
    with torch.set_grad_enabled(with_gradient):
        padded, plain = model(row, segments_BT=segments), model(tokens)
    assert padded.isfinite().all()
    torch.testing.assert_close(padded[segments.bool()], plain[0], rtol=0, atol=1e-12)


@CONFIGS
def test_padding_changes_no_gradient(config: ModelConfig) -> None:
    model, tokens = make_model(config), random_tokens(1, 20)
    model(tokens).square().sum().backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    row = torch.cat((tokens, torch.full((1, 100), 7)), 1)
    segments = (torch.arange(120) < 20).long()[None]
    model(row, segments_BT=segments)[:, :20].square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-9, atol=1e-9)


def test_what_does_not_fit_is_refused() -> None:
    model = make_model(LLAMA).requires_grad_(requires_grad=False)
    with pytest.raises(ModelError, match="257 positions given to a model of 256"):
        model(random_tokens(1, 257))
    with pytest.raises(RecipeError, match="num_kv_heads 4 does not divide num_heads 6"):
        validate_recipe(ModelConfig, {"num_kv_heads": 4}, source="recipe")


def test_bfloat16_training_stays_near_float32() -> None:
    model, tokens = make_model(LLAMA).float(), random_tokens(2, 130)
    exact = model(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(tokens)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), exact, rtol=0.1, atol=0.15)
    exact.square().mean().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    rough.float().square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.dtype == torch.float32
        error = (parameter.grad - gradients[name]).norm() / gradients[name].norm()
        assert error < 0.05, name


def test_initial_weights_are_those_of_gpt2_and_of_the_generator_alone() -> None:
    config = PRESETS["tiny"]
    model = LanguageModel(config, torch.Generator().manual_seed(3))
    again = LanguageModel(config, torch.Generator().manual_seed(3))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name)), name
    block = model.trunk.blocks[0]
    assert block.attention.qkv.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert block.attention.out.weight.std().item() == pytest.approx(0.02 / 8**0.5, rel=0.03)
    assert block.feed_forward.down.weight.std().item() == pytest.approx(0.02 / 8**0.5, rel=0.03)
    assert (block.attention_norm.weight == 1).all()


def test_a_scalar_model_stands_on_a_copy_of_the_trunk_and_starts_small() -> None:
    language = LanguageModel(PRESETS["tiny"], torch.Generator().manual_seed(3))
    scalar = ScalarModel.from_language_model(language, torch.Generator().manual_seed(4))
    assert scalar.head.weight.std().item() == pytest.approx(193**-0.5, rel=0.15)
    assert scalar.head.bias.item() == 0
    tokens = random_tokens(2, 9)
    values = scalar(tokens)
    expected = language.trunk(tokens) @ scalar.head.weight[0] + scalar.head.bias
    torch.testing.assert_close(values, expected)
    values.sum().backward()
    assert all(parameter.grad is None for parameter in language.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert scalar(tokens).dtype == torch.float32


def test_rows_that_are_added_for_a_matrix_unit_change_no_logits_and_no_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = LanguageModel(LLAMA, torch.Generator().manual_seed(1))
    hidden = torch.randn(70, LLAMA.width, generator=torch.Generator().manual_seed(2), requires_grad=True)
    weight = torch.randn(70, LLAMA.vocab_size, generator=torch.Generator().manual_seed(3))

    def logits_and_gradient() -> tuple[torch.Tensor, torch.Tensor]:
        logits = model.logits(hidden)
        return logits, torch.autograd.grad((logits * weight).sum(), hidden)[0]

    plain = logits_and_gradient()
    monkeypatch.setattr(device, "has_matrix_tiles", lambda _: True)
    torch.testing.assert_close(logits_and_gradient(), plain, rtol=1e-5, atol=1e-6)
