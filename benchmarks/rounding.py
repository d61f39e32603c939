"""What weights in few bits cost: held-out bits per byte of the language models of a workspace.

Every matrix that a token is multiplied by, the head among them, is rounded as `decoding_copy` rounds it
(`model/row_product.py`); sums are in float32, so that nothing but rounding differs. `bfloat16 throughout` is the copy
that serves, all its sums and activations in bfloat16.

python -m benchmarks.rounding WORKSPACE --documents 200
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path

import torch
from torch import nn

from sanbai.data.vocabulary import load_tokenizer
from sanbai.evaluation.language import bits_per_byte, heldout_documents
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.workspace import Workspace
from sanbai.generation.precision import decoding_copy
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import load_language_model
from sanbai.model.packed import ROW_PRODUCTS, Bits


@torch.no_grad()
def rounded(model: LanguageModel, bits: Bits) -> LanguageModel:
    """Return a copy whose matrices hold what they are multiplied by, from bfloat16 weights as when serving."""
    copied, rule = copy.deepcopy(model), ROW_PRODUCTS[bits].rounded
    matrices = {module.weight for module in copied.modules() if isinstance(module, nn.Linear)} | {copied.head_weight}
    for weight in matrices:
        weight.copy_(rule(weight.bfloat16()).float())
    return copied


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--stages", nargs="*", default=["pretrain", "supervise"])
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--json", action="store_true", help="end with one JSON record")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    workspace = Workspace(arguments.workspace)
    (shards,) = (each for each in artifacts(workspace) if each.kind == "shards")
    documents = heldout_documents(shards, arguments.documents)
    record = []
    for artifact in artifacts(workspace):
        if artifact.kind != "model" or artifact.manifest["stage"] not in arguments.stages:
            continue
        model, stage = load_language_model(artifact.path).eval(), artifact.manifest["stage"]
        begin_id = load_tokenizer(artifact).reserved.end_of_text
        readers = {
            "float32": model,
            "bfloat16 weights": rounded(model, 16),
            "int8 weights": rounded(model, 8),
            "int4 weights": rounded(model, 4),
            "bfloat16 throughout": decoding_copy(model, "bfloat16"),
        }
        base = 0.0
        for name, reader in readers.items():
            context = min(model.config.max_positions, 256)
            found = bits_per_byte(reader, documents, begin_id=begin_id, context=context, seed=0, draws=100).mean
            base = base or found
            print(f"{artifact.name} {stage:10} {name:20} {found:.5f} {found / base - 1:+.3%}", flush=True)
            record.append({"model": stage, "weights": name, "bits_per_byte": found})
    if arguments.json:
        print(json.dumps({"documents": len(documents), "results": record}))


def artifacts(workspace: Workspace) -> list[Artifact]:
    return [workspace.load(path.name) for path in sorted(workspace.artifacts.iterdir())]


if __name__ == "__main__":
    main()
