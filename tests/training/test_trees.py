"""Prompts with several answers in one row, against each answer in a row of its own."""

import pytest
import torch

from sanbai.foundation.errors import ModelError
from sanbai.foundation.seeds import numpy_generator, torch_generator
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel, ScalarModel
from sanbai.training.sequences import pack_sequences
from sanbai.training.trees import Tree, pack_trees

SMALL = {"vocab_size": 50, "num_layers": 2, "width": 16, "num_heads": 1, "num_kv_heads": 1, "head_width": 16}


def random_trees(num: int, *, longest: int) -> list[Tree]:
    generator = numpy_generator(4, "trees")

    def tokens() -> tuple[int, ...]:
        return tuple(generator.integers(7, 50, size=generator.integers(1, longest)).tolist())

    return [Tree(tokens(), tuple(tokens() for _ in range(generator.integers(1, 9)))) for _ in range(num)]


def separate_values(model: ScalarModel, trees: list[Tree], context: int) -> torch.Tensor:
    rows = [[*tree.prompt, *answer] for tree in trees for answer in tree.answers]
    packed = pack_sequences(rows, context=context)
    return model(packed.tokens_BT, segments_BT=packed.segments_BT).flatten()[packed.last()]


def tree_values(model: ScalarModel, trees: list[Tree], context: int) -> torch.Tensor:
    packed = pack_trees(trees, context=context)
    values_BT = model(
        packed.tokens_BT,
        positions_BT=packed.positions_BT,
        segments_BT=packed.segments_BT,
        branches_BT=packed.branches_BT,
    )
    return values_BT.flatten()[packed.last_N]


@pytest.mark.parametrize("positions", ["rotary", "learned"])
@pytest.mark.parametrize("kv_heads", [1, 2])
def test_values_and_gradients_are_those_of_separate_passes(positions: str, kv_heads: int) -> None:
    config = ModelConfig.model_validate(
        {
            "vocab_size": 50, "num_layers": 2, "width": 32, "num_heads": 2, "num_kv_heads": kv_heads, "head_width": 16,
            "feed_forward_width": 32, "max_positions": 64, "positions": positions, "initial_std": 0.2,
        }
    )  # fmt: skip
    language_model = LanguageModel(config, torch_generator(1, "weights"))
    model = ScalarModel.from_language_model(language_model, torch_generator(2, "head"))
    trees = random_trees(9, longest=20)
    gradients = []
    for values in (separate_values, tree_values):
        found_N = values(model, trees, 64)
        weight_N = torch.linspace(-1, 1, len(found_N))
        gradients.append([found_N.detach(), *torch.autograd.grad((found_N * weight_N).sum(), list(model.parameters()))])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_an_answer_sees_its_prompt_but_no_other_answer() -> None:
    model = ScalarModel(ModelConfig.model_validate(SMALL), torch_generator(1, "weights"))
    with torch.no_grad():
        first = tree_values(model, [Tree((5, 6), ((7, 8), (9,), (10, 11)))], 64)
        other_answer = tree_values(model, [Tree((5, 6), ((12, 13), (9,), (10, 11)))], 64)
        other_prompt = tree_values(model, [Tree((5, 14), ((7, 8), (9,), (10, 11)))], 64)
    assert torch.equal(first[1:], other_answer[1:])
    assert first[0] != other_answer[0]
    assert (first != other_prompt).all()


def test_a_tree_longer_than_the_context_is_cut_between_answers() -> None:
    tree = Tree(tuple(range(7, 17)), tuple((20 + number,) * 6 for number in range(5)))
    packed = pack_trees([tree], context=24)
    assert packed.tokens_BT.shape[1] <= 24
    assert (packed.tokens_BT == 7).sum() == 3  # two answers of six beside a prompt of ten, three times
    assert packed.tokens_BT.flatten()[packed.last_N].tolist() == [20, 21, 22, 23, 24]
    assert packed.positions_BT.max() == 15


def test_nothing_is_lost_and_little_is_padding() -> None:
    trees = random_trees(40, longest=30)
    packed = pack_trees(trees, context=128)
    assert int((packed.segments_BT > 0).sum()) >= sum(tree.num_tokens for tree in trees)
    assert len(packed.last_N) == sum(len(tree.answers) for tree in trees)
    ends = [answer[-1] for tree in trees for answer in tree.answers]
    assert packed.tokens_BT.flatten()[packed.last_N].tolist() == ends
    assert (packed.segments_BT == 0).float().mean() < 0.25


def test_a_model_that_sees_distances_in_the_row_has_no_branches() -> None:
    banded = ModelConfig.model_validate({**SMALL, "masks": ("banded",), "band_width": 4})
    with pytest.raises(ModelError, match="branches"):
        tree_values(ScalarModel(banded, torch_generator(1, "weights")), [Tree((5, 6), ((7, 8), (9,)))], 64)
