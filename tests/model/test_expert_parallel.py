"""Experts divided among processes compute what one process computes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from sanbai.foundation.errors import ModelError
from sanbai.model.experts import Experts, ExpertsConfig

WORKER = Path(__file__).with_name("expert_process.py")


@pytest.mark.parametrize(
    ("num_processes", "config", "gated"),
    [
        (2, ExpertsConfig(num_experts=4, dropless=True, jitter=0.0), False),
        (2, ExpertsConfig(num_experts=6, top_k=2, capacity_factor=0.8, capacity_over="row", jitter=0.0), True),
    ],
    ids=["top-1, dropless", "top-2 with capacity"],
)
def test_two_processes_give_the_outputs_losses_and_gradients_of_one(
    num_processes: int, config: ExpertsConfig, gated: bool, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(1)
    experts = Experts(config, width=8, inner_width=16, activation=F.silu, gated=gated, generator=generator)
    with torch.no_grad():
        experts.router.mul_(10)
        experts.router[0] += 1  # an uneven load, so that counts differ
    x = torch.randn(4, 9, 8, generator=generator) + 0.2
    weight = torch.randn(4, 9, 8, generator=generator)
    save_file({"x": x, "weight": weight, **experts.state_dict()}, tmp_path / "whole.safetensors")
    (tmp_path / "config.json").write_text(config.model_dump_json())

    commands = [[sys.executable, WORKER, str(rank), str(num_processes), tmp_path] for rank in range(num_processes)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    complaints = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * num_processes, complaints

    out, report = experts(x.requires_grad_())
    ((out * weight).sum() + report.loss).backward()
    parts = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(num_processes)]
    close = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(torch.cat([part["out"] for part in parts]), out.detach(), **close)
    torch.testing.assert_close(torch.cat([part["x"] for part in parts]), x.grad, **close)
    torch.testing.assert_close(torch.stack([part["loss"] for part in parts]).mean(), report.loss.detach(), **close)
    torch.testing.assert_close(sum(part["router"] for part in parts), experts.router.grad, **close)
    for name in ("gate", "up", "down") if gated else ("up", "down"):
        gradient = experts.get_parameter(name).grad
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), gradient, **close)


def test_processes_that_do_not_divide_the_experts_evenly_are_refused() -> None:
    experts = Experts(ExpertsConfig(num_experts=4), width=8, inner_width=8, activation=F.relu, gated=False)
    with pytest.raises(ModelError, match="3 processes do not divide 4 experts"):
        experts.divide(SimpleNamespace(size=lambda: 3))  # type: ignore[arg-type]
