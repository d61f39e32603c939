"""Steps over blocks against one plain pass over each whole text: the same hidden vectors, whatever the division."""

from __future__ import annotations

import random

import pytest
import torch

from sanbai.foundation.errors import ModelError
from sanbai.model.config import ModelConfig
from sanbai.model.fused_step import FusedStep, can_fuse
from sanbai.model.heads import LanguageModel
from sanbai.model.paged import Chunks, PagedCache, Pages
from sanbai.model.transformer import Transformer
from sanbai.model.window import Window

BASE = ModelConfig(
    vocab_size=31, num_layers=3, distinct_layers=2, width=24, num_heads=4, num_kv_heads=2, head_width=6,
    feed_forward_width=32, max_positions=40,
)  # fmt: skip
CONFIGS = {
    "rotary": BASE,
    "learned, banded": BASE.model_copy(
        update={"positions": "learned", "masks": ("causal", "banded"), "band_width": 4, "norm": "layer"}
    ),
    "relative, unscaled": BASE.model_copy(
        update={"positions": "relative", "relative_buckets": 8, "relative_distance": 12, "scaled_attention": False}
    ),
    "gelu, biases, query and key norm": BASE.model_copy(
        update={"feed_forward": "gelu_tanh", "bias": True, "query_key_norm": True, "num_kv_heads": 1}
    ),
    "squared relu, no positions": BASE.model_copy(
        update={"feed_forward": "squared_relu", "positions": "none", "norm": "layer", "scaled_attention": False}
    ),
    "sinusoidal, after": BASE.model_copy(update={"positions": "sinusoidal", "norm_place": "after"}),
}
SIZE = 4


def make_model(config: ModelConfig) -> LanguageModel:
    generator = torch.Generator().manual_seed(1)
    model = LanguageModel(config, generator).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def chunk_of(tables: list[list[int]], ranges: list[tuple[int, int]], first: int) -> Chunks:
    """Lay out R texts' ranges by loops; their tokens stand one after the other from `first` on."""
    longest, width = max(end - start for start, end in ranges), max(map(len, tables))
    rows, place = len(ranges), first
    position, token, real = torch.zeros(rows, longest, dtype=torch.int64), torch.full((rows, longest), first), []
    for row, (start, end) in enumerate(ranges):
        for offset in range(end - start):
            position[row, offset], token[row, offset] = start + offset, place
            real.append(row * longest + offset)
            place += 1
    padded = torch.tensor([table + [0] * (width - len(table)) for table in tables])
    return Chunks(block_RM=padded, position_RT=position, token_RT=token, real_A=torch.tensor(real))


@pytest.mark.parametrize("fused", [False, True], ids=["modules", "fused"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@torch.inference_mode()
def test_texts_read_in_chunks_and_token_by_token_are_those_read_whole(config: ModelConfig, fused: bool) -> None:
    model, dice = make_model(config), random.Random(1)
    trunk = model.trunk
    if fused and not can_fuse(model):
        assert "relative" in config.positions or config.norm_place == "after"
        return
    texts = [[dice.randrange(31) for _ in range(length)] for length in (23, 17, 7)]
    order = list(range(20))
    dice.shuffle(order)
    tables = [[order.pop() for _ in range(-(-len(text) // SIZE))] for text in texts]
    cache = PagedCache(config, num_blocks=20, block_size=SIZE, dtype=torch.float64)
    cache._kept_LNPMK.fill_(1e3)  # what others have left must not matter
    window = Window(config, dtype=torch.float64, device="cpu", max_lanes=3)

    def slots(text: int, start: int, end: int) -> list[int]:
        return [tables[text][place // SIZE] * SIZE + place % SIZE for place in range(start, end)]

    def step(ranges: dict[int, tuple[int, int]], decoding: list[int]) -> torch.Tensor:
        """Read texts on; what a decoding one reads beyond a token is a draft."""
        chunks = [
            (text, start + (text in decoding), end)
            for text, (start, end) in ranges.items()
            if text not in decoding or end - start > 1
        ]
        everyone = [(text, ranges[text][0], ranges[text][0] + 1) for text in decoding] + chunks
        positions = torch.tensor([place for _, start, end in everyone for place in range(start, end)])
        pages = Pages(
            cache=cache,
            window=window,
            slot_N=torch.tensor([slot for each in everyone for slot in slots(*each)]),
            position_D=positions[: len(decoding)],
            chunks=[
                chunk_of(
                    [tables[text] for text, _, _ in chunks], [(start, end) for _, start, end in chunks], len(decoding)
                )
            ]
            if chunks
            else [],
            drafted=any(text in decoding for text, _, _ in chunks),
        )
        tokens = torch.tensor([token for text, start, end in everyone for token in texts[text][start:end]])
        if fused:
            fused_step = FusedStep(model)
            wanted = torch.arange(len(tokens) - 1, -1, -2)
            every = fused_step(tokens, positions, pages)
            torch.testing.assert_close(fused_step(tokens, positions, pages, wanted), every[wanted], rtol=0, atol=1e-12)
            return every
        hidden: torch.Tensor = trunk(tokens.unsqueeze(1), positions_BT=positions.unsqueeze(1), pages=pages)[:, 0]
        pages.store()
        return hidden

    whole = [trunk(torch.tensor([text]))[0] for text in texts]
    first = step({0: (0, 6), 1: (0, 9)}, [])
    torch.testing.assert_close(first, torch.cat((whole[0][:6], whole[1][:9])), rtol=0, atol=1e-12)
    window.fit(1, 12)
    for layer in range(config.num_layers):
        window.load(layer, torch.tensor([0]), *cache.read(layer, torch.tensor([tables[1][:3]])))
    mixed = step({1: (9, 10), 0: (6, 18), 2: (0, 3)}, [1])
    torch.testing.assert_close(mixed, torch.cat((whole[1][9:10], whole[0][6:18], whole[2][:3])), rtol=0, atol=1e-12)
    window.fit(2, 400)  # room grows and keeps what it has
    for layer in range(config.num_layers):
        window.load(layer, torch.tensor([1]), *cache.read(layer, torch.tensor([tables[0]])))
    window.fit(2, 20)  # and shrinks
    assert window.num_positions == 32
    both = step({1: (10, 11), 0: (18, 19)}, [1, 0])
    torch.testing.assert_close(both, torch.stack((whole[1][10], whole[0][18])), rtol=0, atol=1e-12)
    drafted = step({1: (11, 15), 0: (19, 21)}, [1, 0])
    expected = torch.cat((whole[1][11:12], whole[0][19:20], whole[1][12:15], whole[0][20:21]))
    torch.testing.assert_close(drafted, expected, rtol=0, atol=1e-12)
    agreed = torch.tensor([*slots(1, 12, 15), *slots(0, 20, 21)])
    window.place(torch.tensor([0, 0, 0, 1]), torch.tensor([12, 13, 14, 20]), cache.read_slots(agreed))
    both = step({1: (15, 16), 0: (21, 22)}, [1, 0])
    torch.testing.assert_close(both, torch.stack((whole[1][15], whole[0][21])), rtol=0, atol=1e-12)
    from_blocks = step({1: (16, 17), 0: (22, 23)}, [])
    torch.testing.assert_close(from_blocks, torch.stack((whole[1][16], whole[0][22])), rtol=0, atol=1e-12)


def test_copied_blocks_hold_the_same_and_cleared_ones_nothing() -> None:
    cache = PagedCache(BASE, num_blocks=4, block_size=2)
    k, v = torch.randn(2, 2, 6), torch.randn(2, 2, 6)
    cache.write(1, torch.tensor([2, 3]), torch.cat((k, v), dim=1))
    cache.copy([1, 1], [3, 0])
    keys, values = cache.read(1, torch.tensor([[3, 0], [1, 1]]))
    torch.testing.assert_close(keys[0], torch.cat((k, k)).transpose(0, 1))
    torch.testing.assert_close(values[1], values[0])
    cache.clear()
    assert not any(part.any() for part in cache.read(1, torch.tensor([[0, 1, 2, 3]])))


def test_models_whose_tokens_depend_on_company_are_refused() -> None:
    pages = Pages(
        cache=PagedCache(BASE, num_blocks=1, block_size=2),
        window=Window(BASE, dtype=torch.float32, device="cpu", max_lanes=3),
        slot_N=torch.tensor([0]),
        position_D=torch.tensor([], dtype=torch.int64),
        chunks=[chunk_of([[0]], [(0, 1)], 0)],
    )
    trunk = Transformer(BASE.model_copy(update={"masks": ("prefix",)}), torch.Generator().manual_seed(1))
    with pytest.raises(ModelError, match="looks ahead"):
        trunk(torch.tensor([[1]]), positions_BT=torch.tensor([[0]]), pages=pages)
