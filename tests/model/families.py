"""The families that have a reference class in transformers: how to make it, how to ask it, how to ask ours.

Each is tiny, with every parameter random, so that a forgotten bias or norm shows. Batches are ragged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

VOCABULARY = 97
_WIDE = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_GPT = {**_WIDE, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 64,
        "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}  # fmt: skip
_NEO = {**_WIDE, "hidden_size": 48, "num_layers": 4, "num_heads": 4, "max_position_embeddings": 64, "window_size": 3,
        "attention_types": [[["global", "local"], 2]], "intermediate_size": 80}  # fmt: skip
_LLAMA = {**_WIDE, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
          "head_dim": 16, "intermediate_size": 80, "max_position_embeddings": 64}  # fmt: skip
_QWEN2 = {**_LLAMA, "head_dim": 12}
_QWEN3_MOE = {**_LLAMA, "num_hidden_layers": 4, "num_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": True,
              "moe_intermediate_size": 80}  # fmt: skip
_LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 32}  # fmt: skip
_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
_BERT = {**_WIDE, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 80,
         "max_position_embeddings": 64, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # fmt: skip
_ERNIE = {**_BERT, "use_task_id": True, "task_type_vocab_size": 4}
_ALBERT = {**_BERT, "embedding_size": 16, "classifier_dropout_prob": 0.0}
_T5 = {**_WIDE, "d_model": 48, "d_kv": 16, "d_ff": 80, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4,
       "dropout_rate": 0.0, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12,
       "decoder_start_token_id": 0}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """One row of the table."""

    name: str
    architecture: str
    settings: dict[str, Any] = field(repr=False)
    double: float = 1e-8
    """Relative error allowed in float64: 1e-6 where the reference computes scores or rotary tables in float32."""

    own_head: bool = False
    """Whether the reference, which ties its head when it is made, is given another, as the published files have."""

    @property
    def writes(self) -> bool:
        """Whether it writes from left to right, and so can have a cache."""
        return self.architecture.endswith(("LMHeadModel", "ForCausalLM", "ForConditionalGeneration"))

    @property
    def learns(self) -> bool:
        """Whether it has a head, and so a loss."""
        return not self.architecture.endswith("Model") or self.writes

    @property
    def encodes(self) -> bool:
        """Whether it has an encoder beside its decoder."""
        return self.architecture.endswith("ForConditionalGeneration")


FAMILIES = [
    Family("GPT-1", "OpenAIGPTLMHeadModel", _GPT),
    Family("GPT-2", "GPT2LMHeadModel", _GPT),
    Family("GPT-2, no head", "GPT2Model", _GPT),
    Family("GPT-2, classes", "GPT2ForSequenceClassification", {**_GPT, "num_labels": 3}),
    Family("GPT-2, spans", "GPT2ForQuestionAnswering", _GPT),
    Family("GPT-3's masks", "GPTNeoForCausalLM", _NEO, double=1e-6),
    Family("Llama 2", "LlamaForCausalLM", _LLAMA, double=1e-6),
    Family("Llama, biases", "LlamaForCausalLM", {**_LLAMA, "attention_bias": True, "tie_word_embeddings": True}, 1e-6),
    Family("Llama 3", "LlamaForCausalLM", {**_LLAMA, "rope_parameters": _LLAMA3}, double=1e-6),
    Family("Llama, classes", "LlamaForSequenceClassification", {**_LLAMA, "num_labels": 3}, double=1e-6),
    Family("Llama, no head", "LlamaModel", _LLAMA, double=1e-6),
    Family("Qwen2", "Qwen2ForCausalLM", _QWEN2, double=1e-6),
    Family("Qwen2, YaRN", "Qwen2ForCausalLM", {**_QWEN2, "rope_parameters": _YARN}, double=1e-6),
    Family("Qwen3", "Qwen3ForCausalLM", _LLAMA, double=1e-6),
    Family("Mixtral", "MixtralForCausalLM", {**_LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2}, double=1e-6),
    Family("Qwen3 MoE", "Qwen3MoeForCausalLM", _QWEN3_MOE, double=1e-6),
    Family("Qwen3 MoE, Switch's", "Qwen3MoeForCausalLM", {**_QWEN3_MOE, "decoder_sparse_step": 2,
                                                         "num_experts_per_tok": 1, "norm_topk_prob": False}, 1e-6),
    Family("BERT", "BertForPreTraining", _BERT),
    Family("BERT, masked", "BertForMaskedLM", _BERT),
    Family("BERT, next sentence", "BertForNextSentencePrediction", _BERT),
    Family("BERT, classes", "BertForSequenceClassification", {**_BERT, "num_labels": 3}),
    Family("BERT, spans", "BertForQuestionAnswering", _BERT),
    Family("ERNIE", "ErnieForPreTraining", _ERNIE),
    Family("ALBERT", "AlbertForPreTraining", _ALBERT),
    Family("ALBERT, masked", "AlbertForMaskedLM", {**_ALBERT, "num_hidden_layers": 2, "inner_group_num": 2}),
    Family("T5 1.0", "T5ForConditionalGeneration", {**_T5, "feed_forward_proj": "relu"}),
    Family("T5 1.1", "T5ForConditionalGeneration", {**_T5, "feed_forward_proj": "gated-gelu",
                                                    "tie_word_embeddings": False}, own_head=True),
    Family("mT5", "MT5ForConditionalGeneration", _T5),
    Family("mT5, own head", "MT5ForConditionalGeneration", _T5, own_head=True),
    Family("Switch", "SwitchTransformersForConditionalGeneration", {**_T5, "num_layers": 4, "num_decoder_layers": 4,
        "num_sparse_encoder_layers": 2, "num_sparse_decoder_layers": 2, "num_experts": 4}),
]  # fmt: skip


@dataclass(frozen=True)
class Batch:
    """Rows of 9, 5 and 1 tokens; what is written beside it in rows of 6, 7 and 2."""

    tokens: Tensor
    real: Tensor
    types: Tensor
    tasks: Tensor
    written: Tensor
    written_real: Tensor

    @property
    def positions(self) -> Tensor:
        """Counted from each row's first token."""
        return (self.real.cumsum(1) - 1).clamp(min=0)


def ragged_batch(side: str) -> Batch:
    """Padded on the side named, or full where it is `none`."""
    generator = torch.Generator().manual_seed(2)

    def rows(lengths: list[int]) -> tuple[Tensor, Tensor]:
        real = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
        real = real.flip(1) if side == "left" else real if side == "right" else torch.ones_like(real)
        return torch.randint(3, VOCABULARY, real.shape, generator=generator) * real, real

    tokens, real = rows([9, 5, 1])
    written, written_real = rows([6, 7, 2])
    types = torch.randint(0, 2, real.shape, generator=generator)
    return Batch(tokens, real, types, torch.randint(0, 4, real.shape, generator=generator), written, written_real)


def make_reference(family: Family, transformers: Any) -> Any:
    """Return the class of transformers, every parameter random."""
    kind = getattr(transformers, family.architecture)
    torch.manual_seed(0)
    model = kind(kind.config_class(**family.settings)).eval()
    if family.own_head:
        model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    return model


def compute_in_double(model: Any) -> None:
    """Let torch's own norm stand in for those that compute in float32 whatever they are given; routers can be told."""
    for module in list(model.modules()):
        if type(module).__name__ == "SwitchTransformersTop1Router":
            module.dtype = torch.float64
        for name, norm in list(module.named_children()):
            if hasattr(norm, "variance_epsilon"):
                exact = torch.nn.RMSNorm(norm.weight.shape, eps=norm.variance_epsilon)
                exact.weight = norm.weight
                setattr(module, name, exact)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Tables that a model makes while it is built have this precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def ask_reference(family: Family, model: Any, batch: Batch, **labels: Tensor) -> Any:
    """Return all that the reference says."""
    inputs: dict[str, Tensor] = {"attention_mask": batch.real, **labels}
    if family.encodes:
        inputs |= {"decoder_input_ids": batch.written, "decoder_attention_mask": batch.written_real}
    else:
        inputs["position_ids"] = batch.positions
    if family.architecture.startswith(("Bert", "Ernie", "Albert")):
        inputs["token_type_ids"] = batch.types
    if family.architecture.startswith("Ernie"):
        inputs["task_type_ids"] = batch.tasks
    return model(batch.tokens, **inputs)


def ask_ours(family: Family, model: Any, batch: Batch) -> tuple[Tensor, ...]:
    """Return our outputs: logits, and those of sentences where there are two."""
    if family.encodes:
        return (model(batch.tokens, batch.written, segments_BM=batch.real, decoder_segments_BT=batch.written_real),)
    inputs = {
        "segments_BT": batch.real,
        "positions_BT": batch.positions,
        "types_BT": batch.types,
        "tasks_BT": batch.tasks,
    }
    if family.architecture.endswith("PreTraining"):
        return tuple(model.both(batch.tokens, **inputs))
    return (model(batch.tokens, **inputs),)


def reference_outputs(said: Any) -> tuple[Tensor, ...]:
    """Return the same of a reference's answer."""
    if "prediction_logits" in said:
        return said["prediction_logits"], said["sop_logits"] if "sop_logits" in said else said[
            "seq_relationship_logits"
        ]
    if "start_logits" in said:
        return (torch.stack((said["start_logits"], said["end_logits"]), dim=-1),)
    return (said["logits"] if "logits" in said else said["last_hidden_state"],)


def real_outputs(family: Family, outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
    """Return what stands on real tokens, in one row. BERT's pooler reads the first place, so only texts there count."""
    real = batch.written_real if family.encodes else batch.real
    begins = real[:, 0].bool()
    if family.architecture.startswith(("GPT2", "Llama")):
        begins = torch.ones_like(begins)
    return torch.cat([out[real.bool()].flatten() if out.dim() == 3 else out[begins].flatten() for out in outputs])


def loss_labels(family: Family, batch: Batch) -> dict[str, Tensor]:
    """Return what the reference learns, under its names: real tokens that follow a real one, or all that are real."""
    generator = torch.Generator().manual_seed(3)
    real = batch.written_real if family.encodes else batch.real
    rows, length = real.shape
    ends = {name: torch.randint(0, length, (rows,), generator=generator) for name in ("start", "end")}
    tokens = torch.randint(3, VOCABULARY, real.shape, generator=generator).masked_fill(real == 0, -100)
    first = torch.nn.functional.pad(real[:, :-1], (1, 0)) == 0
    if family.writes and not family.encodes:
        return {"labels": batch.tokens.masked_fill((real == 0) | first, -100)}
    if family.architecture.endswith("QuestionAnswering"):
        return {"start_positions": ends["start"], "end_positions": ends["end"]}
    classes = torch.randint(0, family.settings.get("num_labels", 2), (rows,), generator=generator)
    if family.architecture.endswith(("Classification", "Prediction")):
        return {"labels": classes}
    if family.architecture.startswith("Albert") and family.architecture.endswith("PreTraining"):
        return {"labels": tokens, "sentence_order_label": classes}
    if family.architecture.endswith("PreTraining"):
        return {"labels": tokens, "next_sentence_label": classes}
    return {"labels": tokens}


def our_loss(family: Family, outputs: tuple[Tensor, ...], labels: dict[str, Tensor]) -> Tensor:
    """Return the loss of our outputs, by torch's cross-entropy."""
    logits = outputs[0]
    if "start_positions" in labels:
        ends = (labels["start_positions"], labels["end_positions"])
        return sum(F.cross_entropy(logits[..., place], ids) for place, ids in enumerate(ends)) / 2
    targets = labels["labels"]
    if family.writes and not family.encodes:
        logits, targets = logits[:, :-1], targets[:, 1:]
    loss = F.cross_entropy(logits.flatten(0, -2), targets.flatten())
    for name in ("next_sentence_label", "sentence_order_label"):
        if name in labels:
            loss = loss + F.cross_entropy(outputs[1], labels[name])
    return loss
