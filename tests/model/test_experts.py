"""Laws of a mixture of experts: the dense layer it generalises, a slow loop, and the layers of transformers."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from scipy.stats import truncnorm
from torch import Tensor, nn
from transformers import MixtralConfig, SwitchTransformersConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersSparseMLP

from sanbai.model.experts import Experts, ExpertsConfig, RouterReport

QUIET = {"jitter": 0.0, "dropout": 0.0}


def make_experts(
    config: ExpertsConfig, *, width: int = 8, inner_width: int = 16, gated: bool = False, dtype: torch.dtype
) -> Experts:
    generator = torch.Generator().manual_seed(5)
    experts = Experts(
        config, width=width, inner_width=inner_width, activation=F.silu if gated else F.relu, gated=gated
    ).to(dtype)
    with torch.no_grad():
        for parameter in experts.parameters():
            parameter.normal_(std=0.5, generator=generator)
    return experts


def random_input(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(6), dtype=dtype).requires_grad_()


def slow_experts(experts: Experts, x_BTD: Tensor, real_BT: Tensor, factor: float) -> Tensor:
    """A token at a time, each expert counting whom it has read."""
    config, (B, T, _) = experts.config, x_BTD.shape
    rows = []
    taken: dict[tuple[int, int], int] = {}
    for b in range(B):
        for t in range(T):
            group = b if config.capacity_over == "row" else 0
            num_real = int(real_BT[b].sum() if config.capacity_over == "row" else real_BT.sum())
            capacity = math.ceil(factor * config.top_k / config.num_experts * num_real) if factor < math.inf else 10**9
            probability = (experts.router @ x_BTD[b, t]).softmax(0)
            chosen = probability.argsort(descending=True)[: config.top_k].tolist()
            gates = probability[chosen] / (probability[chosen].sum() if config.normalised_gates else 1)
            out = torch.zeros_like(x_BTD[b, t])
            for gate, expert in zip(gates, chosen, strict=True):
                if not real_BT[b, t] or taken.get((group, expert), 0) >= capacity:
                    continue
                taken[group, expert] = taken.get((group, expert), 0) + 1
                up = x_BTD[b, t] @ experts.up[expert]
                inner = up.clamp(min=0) if experts.gate is None else F.silu(x_BTD[b, t] @ experts.gate[expert]) * up
                out = out + gate * (inner @ experts.down[expert].T)
            rows.append(out)
    return torch.stack(rows).view_as(x_BTD)


def gradients_of(out: Tensor, x: Tensor, module: nn.Module) -> dict[str, Tensor]:
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(7)).to(out.dtype)
    named = {"x": x, **dict(module.named_parameters())}
    return dict(zip(named, torch.autograd.grad((out * weight).sum(), list(named.values())), strict=True))


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("over", ["batch", "row"])
@pytest.mark.parametrize(
    ("top_k", "normalised", "dropless", "factor"),
    [(1, False, True, 1.0), (1, False, False, 0.7), (2, True, True, 1.0), (2, False, False, 0.8)],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_the_layer_equals_a_loop_over_tokens_in_values_and_gradients(
    gated: bool, over: str, top_k: int, normalised: bool, dropless: bool, factor: float, dtype: torch.dtype
) -> None:
    config = ExpertsConfig.model_validate(
        {"num_experts": 4, "top_k": top_k, "normalised_gates": normalised, "dropless": dropless, **QUIET}
        | {"capacity_factor": factor, "capacity_over": over}
    )
    experts, x = make_experts(config, gated=gated, dtype=dtype), random_input(3, 9, 8, dtype=dtype)
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[1, 5:] = mask[2, :3] = False
    out, report = experts(x, mask_BT=mask)
    expected = slow_experts(experts, x, mask, math.inf if dropless else factor)
    tolerance = 1e-11 if dtype == torch.float64 else 2e-5
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(
        gradients_of(out, x, experts), gradients_of(expected, x, experts), rtol=tolerance, atol=tolerance
    )
    assert (report.dropped_share > 0) == (not dropless)


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_one_expert_is_exactly_the_dense_layer(gated: bool, dtype: torch.dtype) -> None:
    experts = make_experts(ExpertsConfig(num_experts=1, dropless=True, **QUIET), gated=gated, dtype=dtype)
    x = random_input(2, 7, 8, dtype=dtype)
    inner = x @ experts.up[0]
    inner = inner.relu() if experts.gate is None else F.silu(x @ experts.gate[0]) * inner
    dense = inner @ experts.down[0].T
    out, _ = experts(x)
    assert torch.equal(out, dense)
    ours, theirs = (
        gradients_of(out, x, experts.requires_grad_()),
        gradients_of(dense + 0 * experts.router.sum(), x, experts),
    )
    del ours["router"], theirs["router"]  # one expert's probability is 1 whatever the router says
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("capacity", [64, 3], ids=["all read", "some dropped"])
def test_parity_with_the_switch_layer_of_transformers(capacity: int) -> None:
    torch.manual_seed(1)
    E, T = 4, 12
    theirs = SwitchTransformersSparseMLP(
        SwitchTransformersConfig(
            d_model=16, d_ff=32, num_experts=E, expert_capacity=capacity, dropout_rate=0.0, router_jitter_noise=0.0
        )
    )
    config = ExpertsConfig(num_experts=E, capacity_factor=capacity * E / T, capacity_over="row", **QUIET)
    ours = make_experts(config, width=16, inner_width=32, dtype=torch.float32)
    dense = [theirs.experts[f"expert_{expert}"] for expert in range(E)]
    with torch.no_grad():
        ours.router.copy_(theirs.router.classifier.weight)
        ours.up.copy_(torch.stack([expert.wi.weight.T for expert in dense]))
        ours.down.copy_(torch.stack([expert.wo.weight for expert in dense]))
    x = random_input(3, T, 16, dtype=torch.float32)
    out, report = ours(x)
    expected = theirs(x)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    assert (report.dropped_share > 0) == (capacity == 3)
    found, wanted = gradients_of(out, x, ours), gradients_of(expected, x, theirs)
    torch.testing.assert_close(found["x"], wanted["x"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["router"], wanted["router.classifier.weight"], rtol=1e-4, atol=1e-5)
    for name, theirs_name in (("up", "wi"), ("down", "wo")):
        stacked = torch.stack([wanted[f"experts.expert_{expert}.{theirs_name}.weight"] for expert in range(E)])
        ours_of = found[name] if name == "down" else found[name].transpose(1, 2)
        torch.testing.assert_close(ours_of, stacked, rtol=1e-4, atol=1e-5)


def test_parity_with_the_sparse_block_of_mixtral() -> None:
    torch.manual_seed(2)
    theirs = MixtralSparseMoeBlock(
        MixtralConfig(hidden_size=16, intermediate_size=24, num_local_experts=5, num_experts_per_tok=2)
    )
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.3)
    config = ExpertsConfig(num_experts=5, top_k=2, normalised_gates=True, dropless=True, **QUIET)
    ours = make_experts(config, width=16, inner_width=24, gated=True, dtype=torch.float32)
    assert ours.gate is not None
    gate, up = theirs.experts.gate_up_proj.detach().transpose(1, 2).chunk(2, dim=-1)
    with torch.no_grad():
        ours.router.copy_(theirs.gate.weight)
        ours.gate.copy_(gate)
        ours.up.copy_(up)
        ours.down.copy_(theirs.experts.down_proj)
    x = random_input(3, 11, 16, dtype=torch.float32)
    out, _ = ours(x)
    expected = theirs(x)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    found, wanted = gradients_of(out, x, ours), gradients_of(expected, x, theirs)
    gate_up = torch.cat((found["gate"], found["up"]), dim=-1).transpose(1, 2)
    torch.testing.assert_close(found["x"], wanted["x"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["router"], wanted["gate.weight"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gate_up, wanted["experts.gate_up_proj"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["down"], wanted["experts.down_proj"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("over", ["batch", "row"])
def test_a_later_token_never_takes_an_earlier_ones_place(top_k: int, over: str) -> None:
    config = ExpertsConfig.model_validate({"num_experts": 4, "top_k": top_k, "capacity_over": over, **QUIET})
    experts = make_experts(config.model_copy(update={"capacity_factor": 0.8}), dtype=torch.float64)
    x = random_input(1, 20, 8).detach()
    changed = x.clone()
    changed[:, 13:] = changed[:, 13:].flip(1) * -1
    before, _ = experts(x)
    after, _ = experts(changed)
    torch.testing.assert_close(before[:, :13], after[:, :13], rtol=0, atol=1e-14)
    assert not torch.equal(before[:, 13:], after[:, 13:])


@pytest.mark.parametrize("over", ["batch", "row"])
def test_padding_gets_nothing_and_changes_no_real_number(over: str) -> None:
    config = ExpertsConfig.model_validate({"num_experts": 4, "capacity_factor": 0.8, "capacity_over": over, **QUIET})
    experts, x = make_experts(config, dtype=torch.float64), random_input(1, 10, 8).detach()
    padded = torch.cat((torch.full((1, 6, 8), 3.0, dtype=torch.float64), x), dim=1)
    mask = torch.arange(16)[None] >= 6
    plain, plain_report = experts(x)
    out, report = experts(padded, mask_BT=mask)
    torch.testing.assert_close(out[:, 6:], plain, rtol=0, atol=1e-14)
    assert not out[:, :6].any()
    torch.testing.assert_close(vars(report), vars(plain_report))


def test_what_the_report_says_adds_up() -> None:
    config = ExpertsConfig(num_experts=6, capacity_factor=0.5, z_coef=0.001, **QUIET)
    experts, x = make_experts(config, dtype=torch.float64), random_input(2, 12, 8)
    with torch.no_grad():
        experts.router[4] = experts.router[2:4].mean(0)  # between two others, so never above both
    out, report = experts(x)
    chosen = (x @ experts.router.T).argmax(-1).flatten()
    load = torch.tensor([(chosen == expert).sum() / 24 for expert in range(6)])
    torch.testing.assert_close(report.load_E, load)
    assert report.num_dead == sum(share == 0 for share in load)
    assert report.dropped_share.item() == pytest.approx((out == 0).all(-1).sum().item() / 24)
    assert report.loss.item() == pytest.approx(0.01 * report.balance_loss.item() + 0.001 * report.z_loss.item())
    assert not report.entropy.requires_grad


def test_an_undecided_router_has_balance_loss_one_and_full_entropy() -> None:
    experts = make_experts(ExpertsConfig(num_experts=8, **QUIET), dtype=torch.float64)
    nn.init.zeros_(experts.router)
    _, report = experts(random_input(2, 16, 8))
    assert report.balance_loss.item() == pytest.approx(1.0, abs=1e-12)
    assert report.entropy.item() == pytest.approx(math.log(8), abs=1e-12)


def test_under_autocast_the_router_still_tells_apart_what_bfloat16_cannot() -> None:
    config = ExpertsConfig(num_experts=2, dropless=True, **QUIET)
    loads = {}
    for precision in ("float32", "bfloat16"):
        experts = make_experts(config.model_copy(update={"router_precision": precision}), dtype=torch.float32)
        with torch.no_grad():
            experts.router.fill_(1.0)
            experts.router[1] += 1e-3  # below bfloat16's step at 1
        with torch.autocast("cpu", torch.bfloat16):
            _, report = experts(torch.ones(1, 4, 8))
        loads[precision] = report.load_E.tolist()
    assert loads["float32"] == [0.0, 1.0]
    assert loads["bfloat16"] == [1.0, 0.0]


def test_jitter_moves_the_router_in_training_only_and_follows_its_generator() -> None:
    config = ExpertsConfig(num_experts=4, dropless=True, jitter=0.3)
    experts, x = make_experts(config, dtype=torch.float64), random_input(2, 16, 8)

    def entropy(seed: int) -> float:
        report: RouterReport = experts(x, generator=torch.Generator().manual_seed(seed))[1]
        return report.entropy.item()

    assert entropy(1) == entropy(1)
    assert entropy(1) != entropy(2)
    experts.eval()
    assert entropy(1) == entropy(2)


def test_expert_dropout_keeps_the_mean_and_stops_outside_training() -> None:
    config = ExpertsConfig(num_experts=2, dropless=True, jitter=0.0, dropout=0.4)
    experts, x = make_experts(config, dtype=torch.float64), random_input(1, 3, 8).detach()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        draws = torch.stack([experts(x, generator=generator)[0] for _ in range(4000)])
        experts.eval()
        exact, _ = experts(x)
    error = (draws.mean(0) - exact).abs() / (draws.std(0) / 4000**0.5)
    assert (draws.std(0) > 0).all()
    assert error.max() < 4.5


def test_fresh_matrices_are_a_truncated_normal_of_a_tenth_of_the_usual_variance() -> None:
    generator = torch.Generator().manual_seed(1)
    experts = Experts(
        ExpertsConfig(num_experts=16), width=64, inner_width=128, activation=F.relu, gated=True, generator=generator
    )
    for name, fan_in in (("router", 64), ("gate", 64), ("up", 64), ("down", 128)):
        sigma = math.sqrt(0.1 / fan_in)
        values = experts.get_parameter(name).detach().flatten()
        assert values.abs().max() <= 2 * sigma
        assert values.std().item() == pytest.approx(
            truncnorm(-2, 2).std() * sigma, rel=0.05 if name == "router" else 0.01
        )


@pytest.mark.parametrize(("balance_coef", "spread"), [(1.0, True), (0.0, False)], ids=["with the loss", "control"])
def test_the_balance_loss_spreads_a_collapsed_router(balance_coef: float, spread: bool) -> None:
    config = ExpertsConfig(num_experts=4, dropless=True, balance_coef=balance_coef, **QUIET)
    experts, x = make_experts(config, dtype=torch.float32), random_input(8, 16, 8, dtype=torch.float32).detach() + 1
    with torch.no_grad():
        experts.router[1:] = experts.router[0] - 0.3
        experts.router[0] += 0.5
    optimizer = torch.optim.SGD([experts.router], lr=0.3)
    assert experts(x)[1].load_E.max() > 0.9
    for _ in range(200):
        optimizer.zero_grad()
        experts(x)[1].loss.backward()
        optimizer.step()
    assert (experts(x)[1].load_E.max() < 0.5) == spread


@pytest.mark.parametrize(
    "values", [{"num_experts": 2, "top_k": 3}, {"normalised_gates": True}], ids=["too many choices", "gates of one"]
)
def test_settings_that_cannot_work_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ExpertsConfig.model_validate(values)
