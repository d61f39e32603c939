"""What comes in goes out again unchanged, and transformers agrees on both sides."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.folders import make_folder

from sanbai.foundation.errors import ModelError, SanbaiError, UsageError
from sanbai.foundation.progress import SilentProgress
from sanbai.foundation.stage import Job
from sanbai.foundation.stop import StopSignal
from sanbai.foundation.workspace import Workspace
from sanbai.model.exchange import export_model, import_model
from sanbai.model.hugging_face import load_model

transformers = pytest.importorskip("transformers")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    workspace = Workspace(tmp_path / "workspace")
    workspace.create()
    return Job(workspace, SilentProgress(), StopSignal())


def logits_of(theirs: Any, tokens: torch.Tensor) -> torch.Tensor:
    more = {"decoder_input_ids": tokens} if theirs.config.is_encoder_decoder else {}
    with torch.no_grad():
        found: torch.Tensor = theirs(tokens, **more).logits
    return found


@pytest.mark.parametrize("shards", ["5GB", "20KB"], ids=["whole", "sharded"])
@pytest.mark.parametrize("kind", ["gpt2", "qwen", "bert", "t5"])
def test_import_and_export_change_no_byte_and_all_three_agree(kind: str, shards: str, job: Job, tmp_path: Path) -> None:
    theirs = make_folder(tmp_path / "in", kind, max_shard_size=shards)
    artifact = import_model(job, tmp_path / "in")
    export_model(artifact, tmp_path / "out")
    weights = sorted(path.name for path in (tmp_path / "in").glob("model*"))
    assert (len(weights) > 1) == (shards == "20KB")
    for name in (*weights, "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        if (tmp_path / "in" / name).exists():
            assert (tmp_path / "in" / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name
    assert not (tmp_path / "out" / "manifest.json").exists()

    tokens = torch.randint(5, 90, (2, 12), generator=torch.Generator().manual_seed(3))
    expected = logits_of(theirs, tokens)
    again = type(theirs).from_pretrained(tmp_path / "out").eval()
    torch.testing.assert_close(logits_of(again, tokens), expected, rtol=0, atol=0)
    ours = load_model(artifact.path)
    found = ours(tokens, tokens) if kind == "t5" else ours(tokens)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").encode("Anna") is not None


def test_a_folder_of_the_same_content_is_the_same_model(job: Job, tmp_path: Path) -> None:
    make_folder(tmp_path / "one", "gpt2")
    (tmp_path / "one").rename(tmp_path / "two")
    make_folder(tmp_path / "one", "gpt2")
    assert import_model(job, tmp_path / "one").name == import_model(job, tmp_path / "two").name


def test_code_and_pickles_of_a_folder_stay_outside(job: Job, tmp_path: Path) -> None:
    make_folder(tmp_path / "in", "gpt2")
    (tmp_path / "in" / "modeling_own.py").write_text("raise SystemExit")
    (tmp_path / "in" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    names = {path.name for path in import_model(job, tmp_path / "in").path.iterdir()}
    assert not names & {"modeling_own.py", "pytorch_model.bin"}
    assert {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json"} <= names


def test_a_folder_without_a_tokenizer_comes_in_and_says_so(job: Job, tmp_path: Path) -> None:
    make_folder(tmp_path / "in", "gpt2", tokenizer=False)
    metrics = import_model(job, tmp_path / "in").metrics
    assert metrics["architecture"] == "GPT2LMHeadModel"
    assert metrics["tokenizer"].startswith("none: there is no tokenizer.json")


@pytest.mark.parametrize(
    ("kind", "chat"),
    [
        ("qwen", "own"),
        ("gpt2", "turns between end-of-text tokens"),
        ("t5", "none: an encoder-decoder knows no conversation"),
    ],
)
def test_an_import_says_how_its_model_is_talked_to(kind: str, chat: str, job: Job, tmp_path: Path) -> None:
    make_folder(tmp_path / "in", kind)
    metrics = import_model(job, tmp_path / "in").metrics
    assert (metrics["tokenizer"], metrics["chat"], metrics["dtype"]) == ("own", chat, "float32")


def damage(folder: Path, how: str) -> None:
    weights, config = folder / "model.safetensors", json.loads((folder / "config.json").read_text())
    tensors = load_file(weights)
    if how == "architecture":
        config["architectures"] = ["MambaForCausalLM"]
    elif how == "missing":
        del tensors["transformer.h.1.attn.c_attn.weight"]
    elif how == "surplus":
        tensors["transformer.h.7.attn.c_attn.weight"] = torch.zeros(2)
    elif how == "shape":
        tensors["transformer.h.1.attn.c_attn.weight"] = torch.zeros(96, 32)
    elif how == "integers":
        tensors["transformer.h.1.ln_1.weight"] = torch.zeros(32, dtype=torch.int8)
    elif how == "quantised":
        config["quantization_config"] = {"quant_method": "gptq"}
    elif how == "vocabulary":
        tensors["transformer.wte.weight"] = tensors["transformer.wte.weight"][:100].clone()
        config["vocab_size"] = 100
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, weights, metadata={"format": "pt"})
    if how == "pickle":
        weights.rename(folder / "pytorch_model.bin")
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("architecture", "architecture MambaForCausalLM; known: "),
        ("missing", r"tensor transformer.h.1.attn.c_attn.weight is missing \(1 in all\)"),
        ("surplus", r"tensor transformer.h.7.attn.c_attn.weight has no place \(1 in all\)"),
        ("shape", r"tensor transformer.h.1.attn.c_attn.weight is \[96, 32\], config.json wants \[32, 96\]"),
        ("integers", r"tensor transformer.h.1.ln_1.weight is I8, wanted one of F64, F32, F16, BF16"),
        ("quantised", r"its weights are quantised \(gptq\)"),
        ("vocabulary", "its tokenizer has .* ids, its embedding 100 rows"),
        ("pickle", "holds pytorch_model.bin, a pickle, which can run code"),
        ("truncated", "not a whole safetensors file"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(how: str, message: str, job: Job, tmp_path: Path) -> None:
    make_folder(tmp_path / "in", "gpt2")
    damage(tmp_path / "in", how)
    with pytest.raises(ModelError, match=message) as caught:
        import_model(job, tmp_path / "in")
    assert "\n" not in str(caught.value)
    assert not list(job.workspace.artifacts.iterdir())


def test_an_index_that_leads_elsewhere_is_refused(job: Job, tmp_path: Path) -> None:
    make_folder(tmp_path / "in", "gpt2", max_shard_size="20KB")
    index = tmp_path / "in" / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] = {name: "../" + shard for name, shard in content["weight_map"].items()}
    index.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="files of the same folder"):
        import_model(job, tmp_path / "in")


def test_a_folder_with_something_in_it_is_not_written_over(job: Job, tmp_path: Path) -> None:
    make_folder(tmp_path / "in", "gpt2")
    artifact = import_model(job, tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="exists and is not empty"):
        export_model(artifact, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_damaged_artifact_is_not_exported(job: Job, tmp_path: Path) -> None:
    make_folder(tmp_path / "in", "gpt2")
    artifact = import_model(job, tmp_path / "in")
    (artifact.path / "model.safetensors").write_bytes(b"")
    with pytest.raises(SanbaiError, match="delete"):
        export_model(artifact, tmp_path / "out")
    assert not (tmp_path / "out").exists()


#: Prints how many bytes beyond what was there before the work the process has ever held.
MEASURE = """
import sys
from pathlib import Path
import torch
from sanbai.foundation.progress import SilentProgress
from sanbai.foundation.stage import Job
from sanbai.foundation.stop import StopSignal
from sanbai.foundation.workspace import Workspace
from sanbai.model.exchange import export_model, import_model
from sanbai.model.hugging_face import load_model, save_model

def held(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

work, folder, space, small = sys.argv[1], Path(sys.argv[2]), Workspace(Path(sys.argv[3])), Path(sys.argv[4])
space.create()
job = Job(space, SilentProgress(), StopSignal())
import_model(job, small)  # what Python and torch load at their first use is not the file's
save_model(load_model(small), small)
if work == "export":
    artifact = import_model(job, folder)
if work == "save":
    model = load_model(folder, dtype=None)
Path("/proc/self/clear_refs").write_text("5")
before = held("VmRSS")
if work == "import":
    import_model(job, folder)
elif work == "save":
    save_model(model, space.root)
elif work == "export":
    export_model(artifact, space.root / "out")
else:
    model = load_model(folder, dtype=None)
print(held("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("work", "share"), [("import", 0.2), ("load", 1.2), ("save", 0.15), ("export", 0.1)])
def test_memory_stays_within_the_files_size(work: str, share: float, tmp_path: Path) -> None:
    """A file of 200 MB in transposed matrices and an embedding; importing and exporting need next to nothing.

    Saving holds one tensor beside the model: the largest is a sixteenth of the file.
    """
    config = transformers.GPT2Config(vocab_size=4000, n_embd=768, n_layer=7, n_head=12, n_positions=128)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "in")
    size = (tmp_path / "in" / "model.safetensors").stat().st_size
    assert size > 200e6
    make_folder(tmp_path / "small", "gpt2")
    places = [str(tmp_path / name) for name in ("in", "workspace", "small")]
    arguments = [sys.executable, "-c", MEASURE, work, *places]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert int(ended.stdout) < share * size, f"{int(ended.stdout) / size:.2f} of the file"
