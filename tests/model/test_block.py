"""What configuration alone gives: masks by layer, shared layers, prefixes, experts, activations, an encoder."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sanbai.foundation.errors import ModelError, RecipeError
from sanbai.foundation.recipe import validate_recipe
from sanbai.model.block import ACTIVATIONS
from sanbai.model.config import ModelConfig
from sanbai.model.encoder_decoder import EncoderDecoder
from sanbai.model.experts import ExpertsConfig, RouterReport
from sanbai.model.heads import LanguageModel
from sanbai.model.reading_heads import Classifier, MaskedModel, MaskedPairModel, SpanModel
from sanbai.model.transformer import Transformer

BASE = {
    "vocab_size": 61, "num_layers": 4, "width": 48, "num_heads": 4, "num_kv_heads": 2, "head_width": 16,
    "feed_forward_width": 80,
}  # fmt: skip


def config_of(**changes: object) -> ModelConfig:
    return ModelConfig.model_validate({**BASE, **changes})


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.double().eval()


def random_tokens(*shape: int, seed: int = 2) -> Tensor:
    return torch.randint(0, 61, shape, generator=torch.Generator().manual_seed(seed))


def influence(model: torch.nn.Module, tokens: Tensor, **inputs: Tensor) -> list[set[int]]:
    """For each position, the positions whose token changes its result."""
    before = model(tokens, **inputs)[0]
    seen: list[set[int]] = [set() for _ in range(tokens.shape[1])]
    for key in range(tokens.shape[1]):
        changed = tokens.clone()
        changed[0, key] = (changed[0, key] + 1) % 61
        moved = (model(changed, **inputs)[0] - before).abs().amax(-1) > 1e-9
        for query in moved.nonzero().flatten().tolist():
            seen[query].add(key)
    return seen


def test_a_banded_layer_sees_its_band_and_two_layers_see_twice_as_far() -> None:
    for num_layers, reach in ((1, 2), (2, 4)):
        config = config_of(num_layers=num_layers, masks=("banded",), band_width=3)
        seen = influence(randomised(Transformer(config)), random_tokens(1, 9))
        assert seen == [set(range(max(0, query - reach), query + 1)) for query in range(9)]


def test_masks_alternate_from_layer_to_layer() -> None:
    config = config_of(num_layers=3, masks=("causal", "banded"))
    assert [config.mask_of(layer) for layer in range(3)] == ["causal", "banded", "causal"]
    seen = influence(randomised(Transformer(config.model_copy(update={"band_width": 1}))), random_tokens(1, 6))
    assert seen == [set(range(query + 1)) for query in range(6)]


def test_a_prefix_is_seen_from_everywhere_and_what_follows_only_from_behind() -> None:
    model = randomised(Transformer(config_of(num_layers=1, masks=("prefix",))))
    prefix = torch.tensor([[1, 1, 1, 0, 0, 0]])
    assert influence(model, random_tokens(1, 6), prefix_BT=prefix) == [
        {0, 1, 2}, {0, 1, 2}, {0, 1, 2}, {0, 1, 2, 3}, {0, 1, 2, 3, 4}, {0, 1, 2, 3, 4, 5},
    ]  # fmt: skip


@pytest.mark.parametrize("distinct", [1, 2])
def test_shared_layers_are_the_same_blocks_in_turn(distinct: int) -> None:
    shared = randomised(Transformer(config_of(distinct_layers=distinct)))
    spelt_out = Transformer(config_of()).double()
    state = shared.state_dict()
    for layer in range(4):
        for name in [name for name in state if name.startswith(f"blocks.{layer % distinct}.")]:
            state[f"blocks.{layer}.{name.split('.', 2)[2]}"] = state[name]
    spelt_out.load_state_dict(state)
    tokens = random_tokens(2, 7)
    assert len(shared.blocks) == distinct
    torch.testing.assert_close(shared(tokens), spelt_out(tokens), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("relu", lambda x: max(x, 0.0)),
        ("squared_relu", lambda x: max(x, 0.0) ** 2),
        ("gelu", lambda x: x * (1 + math.erf(x / 2**0.5)) / 2),
        ("gelu_tanh", lambda x: x * (1 + math.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2),
        ("quick_gelu", lambda x: x / (1 + math.exp(-1.702 * x))),
        ("swiglu", lambda x: x / (1 + math.exp(-x))),
        ("geglu", lambda x: x * (1 + math.erf(x / 2**0.5)) / 2),
        ("geglu_tanh", lambda x: x * (1 + math.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2),
    ],
)
def test_activations_are_their_formulas(name: str, formula: object) -> None:
    values = [-3.0, -0.5, 0.0, 0.1, 2.0]
    found = ACTIVATIONS[name](torch.tensor(values, dtype=torch.float64)).tolist()
    assert found == pytest.approx([formula(value) for value in values], abs=1e-12)


@pytest.mark.parametrize("positions", ["none", "sinusoidal", "learned", "relative", "rotary"])
def test_only_a_model_without_positions_takes_its_text_in_any_order(positions: str) -> None:
    model = randomised(Transformer(config_of(masks=("full",), positions=positions)))
    tokens = random_tokens(1, 8)
    order = torch.tensor([3, 1, 4, 0, 5, 7, 2, 6])
    same = torch.allclose(model(tokens)[:, order], model(tokens[:, order]), atol=1e-9)
    assert same == (positions == "none")


def test_sparse_layers_are_those_named_and_report_what_their_routers_did() -> None:
    experts = ExpertsConfig(num_experts=3, dropless=True)
    for word, sparse in (("none", []), ("every_second", [1, 3]), ("all", [0, 1, 2, 3])):
        model = LanguageModel(config_of(sparse_layers=word, experts=experts), torch.Generator().manual_seed(1)).eval()
        assert [layer for layer, block in enumerate(model.trunk.blocks) if block.experts is not None] == sparse
        reports: list[RouterReport] = []
        model(random_tokens(2, 7), reports=reports)
        assert len(reports) == len(sparse)
        assert all(report.load_E.sum().item() == pytest.approx(1.0) for report in reports)


def test_padding_is_read_by_no_expert() -> None:
    experts = ExpertsConfig(num_experts=3, capacity_over="batch", evaluation_capacity_factor=1.0)
    model = randomised(LanguageModel(config_of(sparse_layers="all", experts=experts)))
    tokens = random_tokens(1, 9)
    padded = torch.cat((tokens, torch.full((1, 40), 7)), 1)
    found = model(padded, segments_BT=(torch.arange(49) < 9).long()[None])
    torch.testing.assert_close(found[:, :9], model(tokens), rtol=0, atol=1e-12)


def make_pair(**changes: object) -> EncoderDecoder:
    fields = {"encoder_layers": 2, "positions": "relative", "scaled_attention": False, "relative_buckets": 8, **changes}
    return randomised(EncoderDecoder(config_of(**fields))).requires_grad_(requires_grad=False)


def test_both_halves_read_with_one_embedding() -> None:
    model = make_pair()
    assert model.encoder.token_embedding is model.decoder.trunk.token_embedding
    names = [name for name, _ in model.named_parameters() if "token_embedding" in name]
    assert names == ["decoder.trunk.token_embedding.weight"]


@pytest.mark.parametrize("positions", ["relative", "rotary", "learned"])
def test_texts_packed_in_one_row_are_written_as_if_each_were_alone(positions: str) -> None:
    model = make_pair(positions=positions)
    read, written = random_tokens(1, 9), random_tokens(1, 7, seed=3)
    read_segments, written_segments = torch.tensor([[1] * 5 + [2] * 4]), torch.tensor([[1] * 3 + [2] * 4])
    packed = model(read, written, segments_BM=read_segments, decoder_segments_BT=written_segments)
    alone = torch.cat([model(read[:, :5], written[:, :3]), model(read[:, 5:], written[:, 3:])], dim=1)
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-12)


def test_what_cannot_be_is_refused_in_one_line() -> None:
    with pytest.raises(ModelError, match="memory missing; a model of this shape wants an encoder's result"):
        Transformer(config_of(encoder_layers=1))(random_tokens(1, 3))
    with pytest.raises(ModelError, match="untie"):
        LanguageModel(config_of(embedding_width=16))
    for changes, message in (
        ({"encoder_layers": 2, "masks": ["full"]}, "look ahead"),
        ({"distinct_layers": 5}, "distinct_layers 5 is more than num_layers 4"),
        ({"sparse_layers": "all", "bias": True}, "experts have no biases"),
        ({"rope_scaling": {"slow_turns": 4.0}}, "slow_turns 4.0 is not below fast_turns 4.0"),
        ({"maks": ["full"]}, "did you mean masks"),
    ):
        with pytest.raises(RecipeError, match=message):
            validate_recipe(ModelConfig, {**BASE, **changes}, source="recipe")


@pytest.mark.parametrize(
    "changes",
    [
        {"masks": ("full",), "norm": "layer", "norm_place": "after", "embedding_norm": True, "feed_forward": "gelu"},
        {"masks": ("full",), "positions": "relative", "scaled_attention": False, "feed_forward": "geglu_tanh"},
        {"masks": ("causal", "banded"), "band_width": 4, "query_key_norm": True, "positions": "sinusoidal"},
        {"sparse_layers": "every_second", "experts": {"num_experts": 4, "dropless": True}},
    ],
    ids=["post-norm", "relative", "banded", "sparse"],
)
def test_bfloat16_training_stays_near_float32(changes: dict[str, object]) -> None:
    model = LanguageModel(config_of(**changes), torch.Generator().manual_seed(1)).eval()
    tokens = random_tokens(2, 70)
    exact = model(tokens)
    exact.square().mean().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(tokens)
    assert rough.dtype == torch.bfloat16
    assert ((rough.float() - exact).norm() / exact.norm()).item() < 0.03
    rough.float().square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.dtype == torch.float32
        assert (parameter.grad - gradients[name]).norm() <= 0.1 * gradients[name].norm() + 1e-6, name


@pytest.mark.parametrize("masks", [("full",), ("causal",)])
def test_a_text_is_classified_alike_wherever_its_padding_stands(masks: tuple[str, ...]) -> None:
    model = randomised(Classifier(config_of(masks=masks, norm="layer", bias=True), 3))
    tokens, padding = random_tokens(1, 6), torch.full((1, 4), 7)
    alone = model(tokens)
    assert alone.shape == (1, 3)
    for parts in ((tokens, padding), (padding, tokens)):
        real = torch.cat([torch.full_like(part, int(part is tokens)) for part in parts], dim=1)
        torch.testing.assert_close(model(torch.cat(parts, 1), segments_BT=real), alone, rtol=0, atol=1e-12)


def test_a_fine_tuned_model_starts_from_a_copy_of_what_was_learnt() -> None:
    pretrained = randomised(MaskedPairModel(config_of(masks=("full",), feed_forward="gelu", norm="layer")))
    generator = torch.Generator().manual_seed(3)
    classifier, spans = Classifier.from_model(pretrained, 5, generator), SpanModel.from_model(pretrained, generator)
    tokens = random_tokens(2, 7)
    hidden = pretrained.trunk(tokens)
    pooled = (hidden[:, 0] @ pretrained.pooler.dense.weight.T + pretrained.pooler.dense.bias).tanh()
    expected = pooled @ classifier.head.weight.T + classifier.head.bias
    torch.testing.assert_close(classifier(tokens), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(spans(tokens), hidden @ spans.head.weight.T + spans.head.bias, rtol=0, atol=1e-12)
    assert classifier.head.weight.std().item() == pytest.approx(0.02, rel=0.2)
    (classifier(tokens).sum() + spans(tokens).sum()).backward()
    assert all(parameter.grad is None for parameter in pretrained.parameters())


def test_a_masked_model_learns_what_only_the_right_hand_side_tells() -> None:
    """The first token repeats the last; a model that looks back cannot know it. The control looks back."""
    for masks, learns in ((("full",), True), (("causal",), False)):
        config = config_of(num_layers=1, masks=masks, feed_forward="gelu", norm="layer", initial_std=0.1)
        model = MaskedModel(config, torch.Generator().manual_seed(1))
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        generator = torch.Generator().manual_seed(2)
        for _ in range(120):
            tokens = torch.randint(1, 9, (64, 4), generator=generator)
            target = tokens[:, -1]
            tokens[:, 0] = 0
            logits = model.logits(model.trunk(tokens)[:, 0])
            loss = torch.nn.functional.cross_entropy(logits, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert (loss.item() < 0.3) == learns, loss.item()
