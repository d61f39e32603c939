"""One of several processes that share a layer's experts: python expert_process.py RANK NUM_PROCESSES FOLDER.

Reads the whole layer and batch from FOLDER, takes its rows, and writes what it computed there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from sanbai.model.experts import Experts, ExpertsConfig


def main(rank: int, num_processes: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=num_processes)
    config = ExpertsConfig.model_validate_json((folder / "config.json").read_text())
    tensors = load_file(folder / "whole.safetensors")
    x, weight = (tensors.pop(name).chunk(num_processes)[rank].clone() for name in ("x", "weight"))
    D, inner_width = tensors["up"].shape[1:]
    experts = Experts(config, width=D, inner_width=inner_width, activation=F.silu, gated="gate" in tensors)
    experts.to(x.dtype).load_state_dict(tensors)
    experts.divide(dist.group.WORLD)
    out, report = experts(x.requires_grad_())
    ((out * weight).sum() + report.loss / num_processes).backward()
    found = {"out": out.detach(), "x": x.grad, "loss": report.loss.detach()}
    found |= {name: parameter.grad for name, parameter in experts.named_parameters()}
    save_file({name: value.contiguous() for name, value in found.items()}, folder / f"{rank}.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
