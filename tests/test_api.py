"""`import sanbai` in Python: what loads, what it computes, beside transformers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.folders import make_folder

import sanbai
from sanbai.foundation.errors import ModelError, UnknownNameError, UsageError

transformers = pytest.importorskip("transformers")
GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "python.md"
TOKENS = torch.randint(5, 90, (2, 12), generator=torch.Generator().manual_seed(3))


def test_importing_the_package_imports_no_torch() -> None:
    script = "import sys, sanbai; print(sanbai.__all__, 'torch' in sys.modules, 'sanbai.api' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "['generate', 'load', 'load_tokenizer', 'save'] False False"


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'sanbai' has no attribute 'laod'"):
        sanbai.laod  # noqa: B018


@pytest.mark.parametrize("kind", ["gpt2", "qwen", "bert"])
def test_a_bare_folder_gives_the_logits_of_transformers(kind: str, tmp_path: Path) -> None:
    theirs = make_folder(tmp_path, kind, tokenizer=False)
    model = sanbai.load(tmp_path)
    assert not model.training
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS), theirs(TOKENS).logits, rtol=1e-4, atol=1e-4)


def test_an_encoder_decoder_is_called_with_both_texts(tmp_path: Path) -> None:
    theirs = make_folder(tmp_path, "t5", tokenizer=False)
    model = sanbai.load(str(tmp_path))
    decoder_tokens = TOKENS[:, :7]
    with torch.no_grad():
        expected = theirs(TOKENS, decoder_input_ids=decoder_tokens).logits
        torch.testing.assert_close(model(TOKENS, decoder_tokens), expected, rtol=1e-4, atol=1e-4)


def test_without_a_head_the_hidden_states_come_out(tmp_path: Path) -> None:
    theirs = make_folder(tmp_path / "whole", "gpt2").transformer
    theirs.config.architectures = ["GPT2Model"]
    theirs.save_pretrained(tmp_path / "trunk")
    model = sanbai.load(tmp_path / "trunk")
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS), theirs(TOKENS).last_hidden_state, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_the_dtype_is_the_files_unless_another_is_asked_for(stored: torch.dtype, tmp_path: Path) -> None:
    make_folder(tmp_path / "in", "qwen").to(stored).save_pretrained(tmp_path / "stored")
    as_stored, double = sanbai.load(tmp_path / "stored"), sanbai.load(tmp_path / "stored", dtype=torch.float64)
    assert {parameter.dtype for parameter in as_stored.parameters()} == {stored}
    assert {parameter.dtype for parameter in double.parameters()} == {torch.float64}
    assert {str(parameter.device) for parameter in double.parameters()} == {"cpu"}


def test_the_likeliest_answer_is_that_of_transformers(tmp_path: Path) -> None:
    theirs = make_folder(tmp_path, "qwen")
    model = sanbai.load(tmp_path)
    prompt = TOKENS[:1]
    expected = theirs.generate(prompt, max_new_tokens=12, do_sample=False, pad_token_id=0)[
        0, prompt.shape[1] :
    ].tolist()
    ends = sanbai.load_tokenizer(tmp_path).reserved.ends()
    found = sanbai.generate(model, prompt, max_new_tokens=12, temperature=0.0)
    assert found == [token for token in expected if token not in ends]
    assert found == sanbai.generate(model, prompt[0].tolist(), max_new_tokens=12, temperature=0.0)


def test_texts_and_messages_are_answered_with_text(tmp_path: Path) -> None:
    make_folder(tmp_path, "qwen")
    model = sanbai.load(tmp_path)
    text = sanbai.generate(model, "Anna bakes", max_new_tokens=5, seed=2)
    answer = sanbai.generate(model, [{"role": "user", "content": "Who bakes?"}], max_new_tokens=5, seed=2)
    assert isinstance(text, str)
    assert text == sanbai.generate(model, "Anna bakes", max_new_tokens=5, seed=2)
    assert answer != text


def test_an_encoder_decoder_writes_what_transformers_writes(tmp_path: Path) -> None:
    theirs = make_folder(tmp_path, "t5")
    model, tokenizer = sanbai.load(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    source = [*tokenizer.encode("Anna bakes bread.", add_special_tokens=False), tokenizer.eos_token_id]
    expected = theirs.generate(torch.tensor([source]), max_new_tokens=9, do_sample=False)[0, 1:].tolist()
    found = sanbai.generate(model, source, max_new_tokens=9, temperature=0.0)
    assert found == [token for token in expected if token != tokenizer.eos_token_id]
    text = sanbai.generate(model, "Anna bakes bread.", max_new_tokens=9, temperature=0.0)
    assert text == sanbai.load_tokenizer(tmp_path).decode(found), "a text is read with the mark of its end"
    with pytest.raises(ModelError, match="an encoder-decoder reads one text and knows no turns"):
        sanbai.generate(model, [{"role": "user", "content": "Who bakes?"}])


def test_saving_takes_the_tokenizer_along_and_transformers_loads_it(tmp_path: Path) -> None:
    theirs = make_folder(tmp_path / "in", "gpt2")
    model = sanbai.load(tmp_path / "in")
    sanbai.save(model, tmp_path / "new" / "out")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "new" / "out")
    with torch.no_grad():
        torch.testing.assert_close(again(TOKENS).logits, theirs(TOKENS).logits, rtol=0, atol=0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "new" / "out")
    assert tokenizer.encode("Anna bakes") == sanbai.load_tokenizer(tmp_path / "in").encode("Anna bakes")


def test_what_cannot_be_done_is_one_clear_line(tmp_path: Path) -> None:
    make_folder(tmp_path / "bare", "gpt2", tokenizer=False)
    make_folder(tmp_path / "bert", "bert")
    with pytest.raises(UsageError, match="a text needs a tokenizer"):
        sanbai.generate(sanbai.load(tmp_path / "bare"), "Anna")
    with pytest.raises(ModelError, match="a MaskedModel does not write on"):
        sanbai.generate(sanbai.load(tmp_path / "bert"), "Anna")
    with pytest.raises(UnknownNameError, match="absent: no such folder"):
        sanbai.load("absent", workspace=tmp_path / "none")
    with pytest.raises(UsageError, match="temperature"):
        sanbai.generate(sanbai.load(tmp_path / "bare"), [1, 2], temperature=-1.0)
    with pytest.raises(UsageError, match=r"a prompt of shape \[2, 12\]"):
        sanbai.generate(sanbai.load(tmp_path / "bare"), TOKENS)
    assert not (tmp_path / "none").exists()


def test_the_examples_of_the_guide_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order, as one program, in a folder that holds what they name."""
    for kind in ("gpt2", "bert", "t5"):
        make_folder(tmp_path / f"my-{kind}", kind)
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    program = compile("\n".join(examples), str(GUIDE), "exec")
    names: dict[str, object] = {}
    exec(program, names)
    assert len(examples) >= 5
    assert (tmp_path / "my-copy" / "model.safetensors").is_file()
    assert isinstance(names["answer"], str)
