"""Folders as transformers writes them, tiny and with random weights: what people bring from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Engine
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

TEXTS = [
    "Anna bakes bread in the mill. Her son likes painting, and so does Anna.",
    "Who lives in the village? 12 + 30 = 42; it's what they've said.",
    "user assistant system tool Question Answer",
] * 20
#: Qwen's, in miniature: a system message of its own where none is given.
CHATML = """{%- for message in messages %}
{%- if loop.first and message['role'] != 'system' %}
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
#: Llama 3's way: a marker at the very beginning, contents trimmed.
LLAMA3 = """{{- bos_token }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""
#: Llama 2's way: roles in plain words, which any text can write.
PLAIN_WORDS = """{%- for message in messages %}
{{- ('[INST] ' + message['content'] + ' [/INST]') if message['role'] == 'user' else message['content'] }}
{%- endfor %}"""


def byte_level(special: list[str], texts: Sequence[str] = TEXTS, vocab_size: int = 340) -> Engine:
    """GPT-2's kind, and Qwen's."""
    engine = Engine(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    engine.train_from_iterator(texts, trainer)
    return engine


def unigram() -> Engine:
    """T5's kind, whose model spells `</s>` from text."""
    engine = Engine(models.Unigram())
    engine.pre_tokenizer = pre_tokenizers.Metaspace()
    engine.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        initial_alphabet=["<", "/", ">", "|"],
        show_progress=False,
    )
    engine.train_from_iterator(TEXTS, trainer)
    return engine


def word_piece() -> Engine:
    """BERT's kind, which forgets capitals."""
    engine = Engine(models.WordPiece(unk_token="[UNK]"))
    engine.normalizer = normalizers.BertNormalizer(lowercase=True)
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    engine.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=160, special_tokens=special, show_progress=False)
    )
    return engine


def tokenizer_of(kind: str) -> Any:
    """Return a tokenizer of transformers: gpt2, qwen, qwen3 (the same), llama3, words, t5 or bert."""
    from transformers import PreTrainedTokenizerFast as Fast

    text_ends = "<|endoftext|>"
    if kind == "gpt2":
        return Fast(tokenizer_object=byte_level([text_ends]), bos_token=text_ends, eos_token=text_ends)
    if kind == "words":
        engine = byte_level([text_ends])
        return Fast(tokenizer_object=engine, eos_token=text_ends, chat_template=PLAIN_WORDS)
    if kind.startswith("qwen"):
        engine = byte_level([text_ends, "<|im_start|>", "<|im_end|>"])
        return Fast(tokenizer_object=engine, eos_token="<|im_end|>", pad_token=text_ends, chat_template=CHATML)
    if kind == "llama3":
        special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
        engine = byte_level(special)
        return Fast(tokenizer_object=engine, bos_token=special[0], eos_token="<|eot_id|>", chat_template=LLAMA3)
    if kind == "t5":
        return Fast(tokenizer_object=unigram(), eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
    return Fast(
        tokenizer_object=word_piece(),
        cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]",
    )  # fmt: skip


#: Kind -> class of transformers and its settings, the vocabulary's size left out.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}),
    "qwen": (
        "Qwen2ForCausalLM",
        {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "intermediate_size": 48, "max_position_embeddings": 128, "tie_word_embeddings": True,
        },
    ),
    "qwen3": (
        "Qwen3ForCausalLM",
        {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 12, "intermediate_size": 48, "max_position_embeddings": 128, "tie_word_embeddings": True,
        },
    ),
    "bert": (
        "BertForMaskedLM",
        {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
            "max_position_embeddings": 64,
        },
    ),
    "t5": (
        "T5ForConditionalGeneration",
        {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0},
    ),
}  # fmt: skip


def make_folder(folder: Path, kind: str, *, tokenizer: bool = True, **save: Any) -> Any:
    """Write a folder of a kind and return its model.

    Args:
        folder: made if need be.
        kind: gpt2, qwen (2), qwen3, bert or t5.
        tokenizer: whether it gets one.
        save: options of `save_pretrained`.
    """
    import torch
    import transformers

    theirs = tokenizer_of(kind)
    architecture, settings = SHAPES[kind]
    model_class = getattr(transformers, architecture)
    # Qwen's embedding has rows to spare, so that its size divides well, and T5's too.
    vocab_size = max(len(theirs) + 5 * kind.startswith("qwen"), 100)
    torch.manual_seed(0)
    model = model_class(model_class.config_class(vocab_size=vocab_size, **settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    if kind.startswith("qwen"):
        ids = theirs.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
        model.generation_config.update(eos_token_id=ids, do_sample=True, temperature=0.6)
    model.save_pretrained(folder, **save)
    if tokenizer:
        theirs.save_pretrained(folder)
    return model
