"""What does not fit is refused in one line, in every family; and importing needs little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.model.families import FAMILIES, Family, make_reference

from sanbai.foundation.errors import ModelError
from sanbai.model.config import ModelConfig
from sanbai.model.encoder_decoder import EncoderDecoder
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import LAYOUTS, load_model, save_model
from sanbai.model.layouts.layout import effective_fields
from sanbai.model.presets import PRESETS
from sanbai.model.reading_heads import MaskedPairModel

transformers = pytest.importorskip("transformers")

FAMILY = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


#: One family of each model type, for its settings.
BY_TYPE = {getattr(transformers, family.architecture).config_class.model_type: family for family in reversed(FAMILIES)}
ARCHITECTURES = sorted({(layout.model_type, head.architecture) for layout in LAYOUTS for head in layout.heads})


@pytest.mark.parametrize(("model_type", "architecture"), ARCHITECTURES)
def test_every_architecture_we_name_goes_in_and_out(model_type: str, architecture: str, tmp_path: Path) -> None:
    """A trunk without a head has no pooler here; all else comes back, bit for bit, and nothing is surplus."""
    settings = BY_TYPE[model_type].settings
    if architecture.endswith("SequenceClassification"):
        settings = {**settings, "num_labels": 3}
    reference = make_reference(Family("", architecture, settings), transformers)
    reference.save_pretrained(tmp_path)
    (tmp_path / "ours").mkdir()
    save_model(load_model(tmp_path), tmp_path / "ours")
    again, report = type(reference).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["unexpected_keys"]
    assert all("pooler." in name for name in report["missing_keys"])
    assert not report["missing_keys"] or architecture in {"BertModel", "ErnieModel", "AlbertModel"}
    for name, parameter in again.named_parameters():
        assert name in report["missing_keys"] or torch.equal(parameter, reference.get_parameter(name)), name


@FAMILY
def test_a_missing_a_surplus_and_a_misshapen_tensor_are_named(family: Family, tmp_path: Path) -> None:
    make_reference(family, transformers).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = load_file(path)
    name = next(name for name in sorted(whole) if ".0." in name and whole[name].dim() == 2)
    short = {**whole, name: whole[name][:-1].clone()}
    cases = {
        f"tensor {name} is missing": {key: value for key, value in whole.items() if key != name},
        "tensor zoo.weight has no place": {**whole, "zoo.weight": torch.ones(2)},
        f"tensor {name} is .*, config.json wants": short,
    }
    for message, tensors in cases.items():
        save_file(tensors, path, metadata={"format": "pt"})
        with pytest.raises(ModelError, match=message) as caught:
            load_model(tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("GPT-1", {"afn": "swish"}, "afn is 'swish', only 'gelu', 'gelu_new', 'relu' are supported"),
        ("GPT-2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ("GPT-3's masks", {"attention_types": [[["global", "strided"], 2]]}, "attention_types has .'strided'."),
        ("Llama 3", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type is 'dynamic'"),
        ("Qwen2", {"use_sliding_window": True}, "sliding window"),
        ("BERT", {"is_decoder": True}, "is_decoder is True"),
        ("ALBERT", {"num_hidden_groups": 2}, "num_hidden_groups is 2"),
        ("ALBERT", {"embedding_size": 48}, "embedding_size is hidden_size, 48"),
        ("T5 1.0", {"feed_forward_proj": "gated-relu"}, "feed_forward_proj is 'gated-relu'"),
        ("Switch", {"num_sparse_encoder_layers": 1}, r"sparse layers \[1\] of 4"),
        ("Switch", {"num_sparse_encoder_layers": 4}, "all and every_second of the layers are sparse"),
    ],
)
def test_a_setting_that_we_do_not_have_is_named(
    family: str, changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    reference = make_reference(next(one for one in FAMILIES if one.name == family), transformers)
    reference.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ModelError, match=message) as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in PRESETS if not name.startswith("gpt3") and name != "switch-xxl"])
def test_a_preset_has_a_stock_architecture_that_gives_it_back(name: str) -> None:
    config = PRESETS[name]
    settings = {"vocab_size": config.vocab_size, "tie_word_embeddings": config.tied_embeddings}
    again = []
    for layout in LAYOUTS:
        try:
            again.append(ModelConfig.model_validate(layout.read({**settings, **layout.write(config)})))
        except (ModelError, ValueError):
            continue
    assert any(effective_fields(found) == effective_fields(config) for found in again)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (PRESETS["gpt3-125m"], "nearest, gpt2, differs in band_width, masks"),
        (PRESETS["switch-xxl"], "nearest, t5, differs in .*experts, sparse_layers"),
        (
            PRESETS["tiny"].model_copy(update={"query_key_norm": True, "bias": True}),
            "nearest, llama, differs in query_key_norm",
        ),
    ],
)
def test_a_shape_without_a_stock_architecture_is_refused_with_what_differs(
    config: ModelConfig, message: str, tmp_path: Path
) -> None:
    with torch.device("meta"):
        model = (EncoderDecoder if config.encoder_layers else LanguageModel)(config)
    with pytest.raises(ModelError, match=message):
        save_model(model, tmp_path)


def test_old_names_and_a_trunk_stored_without_its_prefix_are_read(tmp_path: Path) -> None:
    """As in the first published files of BERT and GPT-2."""
    for family, old in (("BERT", (".LayerNorm.weight", ".LayerNorm.gamma")), ("GPT-2", ("transformer.", ""))):
        folder = tmp_path / family
        make_reference(next(one for one in FAMILIES if one.name == family), transformers).save_pretrained(folder)
        expected = load_model(folder).state_dict()
        path = folder / "model.safetensors"
        save_file({name.replace(*old): value for name, value in load_file(path).items()}, path)
        found = load_model(folder).state_dict()
        assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_masked_model_is_read_from_a_file_that_holds_the_sentence_head_too(tmp_path: Path) -> None:
    config = ModelConfig.model_validate(
        {**PRESETS["bert-base"].model_dump(), "num_layers": 1, "width": 48, "num_heads": 4, "num_kv_heads": 4,
         "head_width": 12, "feed_forward_width": 80, "vocab_size": 97}
    )  # fmt: skip
    save_model(MaskedPairModel(config, torch.Generator().manual_seed(1)), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace("BertForPreTraining", "BertForMaskedLM"))
    tokens = torch.tensor([[5, 6, 7]])
    assert load_model(tmp_path)(tokens).shape == (1, 3, 97)


MEASURE = """
import resource, sys, torch
from pathlib import Path
from sanbai.model.hugging_face import load_model
torch.ones(4) @ torch.ones(4)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = load_model(Path(sys.argv[1]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_importing_takes_less_than_a_fifth_more_memory_than_the_file(tmp_path: Path) -> None:
    config = PRESETS["small"].model_copy(update={"width": 768, "feed_forward_width": 2048, "num_layers": 8})
    save_model(LanguageModel(config, torch.Generator().manual_seed(1)), tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True, env=environment
    )
    assert int(ran.stdout) < 1.2 * size, f"{int(ran.stdout) / size:.2f} times the file's {size / 1e6:.0f} MB"
