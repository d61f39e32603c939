"""Muon for the blocks' matrices: what it moves, how far, and that it can be continued."""

import torch

from sanbai.foundation.seeds import torch_generator
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel
from sanbai.training.muon import Muon
from sanbai.training.optimizer import Optimizer, OptimizerRecipe

CONFIG = ModelConfig(
    vocab_size=50, num_layers=1, width=32, num_heads=2, num_kv_heads=2, head_width=16, feed_forward_width=64
)
RATE = 1e-2


def random_gradients(model: LanguageModel, seed: int) -> None:
    generator = torch_generator(seed, "gradients")
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def step(model: LanguageModel, optimizer: Optimizer, seed: int) -> None:
    random_gradients(model, seed)
    optimizer.step(RATE)


def test_a_matrix_moves_by_a_nearly_orthogonal_matrix_of_adamws_usual_size() -> None:
    model = LanguageModel(CONFIG, torch_generator(1, "weights"))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    step(model, Optimizer(model, OptimizerRecipe(matrices="muon", max_grad_norm=1e6)), seed=1)
    moved = 0
    for name, parameter in model.named_parameters():
        if "blocks." in name and parameter.dim() == 2:
            # Liu et al. 2025, eq. 4: an orthogonal matrix times 0.2 sqrt(max(rows, columns)) has AdamW's usual RMS.
            update = (before[name] - parameter.detach()) / (RATE * 0.2 * max(parameter.shape) ** 0.5)
            values = torch.linalg.svdvals(update)
            assert values.min() > 0.3, name  # five Newton-Schulz steps bring singular values near 1, not to it
            assert values.max() < 1.3, name
            moved += 1
    assert moved == 5  # query-key-value, output; gate, up, down


def test_embeddings_and_vectors_move_by_adamw() -> None:
    model, plain = (LanguageModel(CONFIG, torch_generator(1, "weights")) for _ in range(2))
    step(model, Optimizer(model, OptimizerRecipe(matrices="muon")), seed=1)
    step(plain, Optimizer(plain, OptimizerRecipe()), seed=1)
    others = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        by_muon = "blocks." in name and parameter.dim() == 2
        assert torch.equal(parameter, others[name]) is not by_muon, name


def test_a_continued_optimizer_takes_the_same_steps() -> None:
    recipe = OptimizerRecipe(matrices="muon", weight_decay=0.1)
    whole, cut = (LanguageModel(CONFIG, torch_generator(1, "weights")) for _ in range(2))
    optimizer = Optimizer(whole, recipe)
    for seed in range(4):
        step(whole, optimizer, seed)
    first = Optimizer(cut, recipe)
    for seed in range(2):
        step(cut, first, seed)
    saved = {name: tensor.clone() for name, tensor in first.tensors().items()}
    second = Optimizer(cut, recipe)
    second.load(saved)
    for seed in range(2, 4):
        step(cut, second, seed)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), cut.parameters(), strict=True))


def test_steps_are_those_of_torchs_muon() -> None:
    """Independent: `torch.optim.Muon`; batched bfloat16 products may round otherwise."""
    model, reference = (LanguageModel(CONFIG, torch_generator(1, "weights")) for _ in range(2))
    names = [name for name, parameter in model.named_parameters() if "blocks." in name and parameter.dim() == 2]
    ours = Muon({name: model.get_parameter(name) for name in names}, momentum=0.9, weight_decay=0.1)
    theirs = torch.optim.Muon(
        [reference.get_parameter(name) for name in names],
        lr=RATE,
        momentum=0.9,
        weight_decay=0.1,
        adjust_lr_fn="match_rms_adamw",
    )
    for seed in range(3):
        random_gradients(model, seed)
        random_gradients(reference, seed)
        before = {name: model.get_parameter(name).detach().clone() for name in names}
        ours.step(RATE)
        theirs.step()
        for name in names:
            found, expected = model.get_parameter(name), reference.get_parameter(name)
            moved = (found - before[name]).norm()
            assert (found - expected).norm() < 0.02 * moved, name
            with torch.no_grad():
                found.copy_(expected)
