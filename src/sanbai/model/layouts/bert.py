"""BERT, ERNIE (tasks beside token types) and ALBERT (one block for all layers, a narrow embedding)."""

from __future__ import annotations

from typing import Any

from sanbai.foundation.errors import ModelError
from sanbai.model.config import ModelConfig
from sanbai.model.layouts.layout import ACTIVATIONS, Head, Layout, Names, Settings, choose, require, under, word_for
from sanbai.model.reading_heads import Classifier, MaskedModel, MaskedPairModel, NextSentenceModel, SpanModel
from sanbai.model.transformer import Transformer

_EMBEDDINGS: Names = {
    "token_embedding": "embeddings.word_embeddings",
    "position_embedding": "embeddings.position_embeddings",
    "type_embedding": "embeddings.token_type_embeddings",
    "task_embedding": "embeddings.task_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
}
_BERT_TRUNK: Names = {
    **_EMBEDDINGS,
    **under(
        "blocks.*.",
        "encoder.layer.*.",
        {
            "attention.qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
            "attention.out": "attention.output.dense",
            "attention_norm": "attention.output.LayerNorm",
            "feed_forward.up": "intermediate.dense",
            "feed_forward.down": "output.dense",
            "feed_forward_norm": "output.LayerNorm",
        },
    ),
}
_ALBERT_TRUNK: Names = {
    **_EMBEDDINGS,
    "embedding_projection": "encoder.embedding_hidden_mapping_in",
    **under(
        "blocks.*.",
        "encoder.albert_layer_groups.0.albert_layers.*.",
        {
            "attention.qkv": ("attention.query", "attention.key", "attention.value"),
            "attention.out": "attention.dense",
            "attention_norm": "attention.LayerNorm",
            "feed_forward.up": "ffn",
            "feed_forward.down": "ffn_output",
            "feed_forward_norm": "full_layer_layer_norm",
        },
    ),
}


def _bert_heads(name: str, prefix: str) -> tuple[Head, ...]:
    whole = under("trunk.", prefix, _BERT_TRUNK)
    pooler = {"pooler.dense": f"{prefix}pooler.dense"}
    masked = {
        "head": "cls.predictions",
        "head.dense": "cls.predictions.transform.dense",
        "head.norm": "cls.predictions.transform.LayerNorm",
    }
    pair = rf"{prefix}pooler\..*|cls\.seq_relationship\..*"
    return (
        Head(
            f"{name}ForPreTraining", MaskedPairModel, {**whole, **pooler, **masked, "sentence": "cls.seq_relationship"}
        ),
        Head(f"{name}ForMaskedLM", MaskedModel, {**whole, **masked}, unused=pair),
        Head(
            f"{name}ForNextSentencePrediction", NextSentenceModel, {**whole, **pooler, "head": "cls.seq_relationship"}
        ),
        Head(f"{name}ForSequenceClassification", Classifier, {**whole, **pooler, "head": "classifier"}),
        Head(f"{name}ForQuestionAnswering", SpanModel, {**whole, "head": "qa_outputs"}, unused=rf"{prefix}pooler\..*"),
        Head(f"{name}Model", Transformer, _BERT_TRUNK, unused=r"pooler\..*"),
    )


def _albert_heads() -> tuple[Head, ...]:
    whole = under("trunk.", "albert.", _ALBERT_TRUNK)
    pooler = {"pooler.dense": "albert.pooler"}
    masked = {"head": "predictions", "head.dense": "predictions.dense", "head.norm": "predictions.LayerNorm"}
    pair = r"albert\.pooler\..*|sop_classifier\..*"
    return (
        Head(
            "AlbertForPreTraining",
            MaskedPairModel,
            {**whole, **pooler, **masked, "sentence": "sop_classifier.classifier"},
        ),
        Head("AlbertForMaskedLM", MaskedModel, {**whole, **masked}, unused=pair),
        Head("AlbertForSequenceClassification", Classifier, {**whole, **pooler, "head": "classifier"}),
        Head("AlbertForQuestionAnswering", SpanModel, {**whole, "head": "qa_outputs"}, unused=r"albert\.pooler\..*"),
        Head("AlbertModel", Transformer, _ALBERT_TRUNK, unused=r"pooler\..*"),
    )


def _read_bert(settings: Settings) -> dict[str, Any]:
    require(settings, {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False})
    heads, width = settings.get("num_attention_heads", 12), settings.get("hidden_size", 768)
    return {
        "vocab_size": settings.get("vocab_size", 30_522),
        "num_layers": settings.get("num_hidden_layers", 12),
        "width": width,
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_width": width // max(heads, 1),
        "masks": ("full",),
        "feed_forward": choose(settings, "hidden_act", ACTIVATIONS, "gelu"),
        "feed_forward_width": settings.get("intermediate_size", 3072),
        "norm": "layer",
        "norm_place": "after",
        "norm_epsilon": settings.get("layer_norm_eps", 1e-12),
        "embedding_norm": True,
        "positions": "learned",
        "max_positions": settings.get("max_position_embeddings", 512),
        "num_token_types": settings.get("type_vocab_size", 2),
        "bias": True,
        "tied_embeddings": settings.get("tie_word_embeddings", True),
    }


def _write_bert(config: ModelConfig) -> dict[str, Any]:
    return {
        "hidden_size": config.width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.feed_forward_width,
        "hidden_act": word_for(ACTIVATIONS, config.feed_forward),
        "max_position_embeddings": config.max_positions,
        "type_vocab_size": config.num_token_types,
        "layer_norm_eps": config.norm_epsilon,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def _read_ernie(settings: Settings) -> dict[str, Any]:
    num_tasks = settings.get("task_type_vocab_size", 3) if settings.get("use_task_id", False) else 0
    return {**_read_bert(settings), "num_task_types": num_tasks}


def _write_ernie(config: ModelConfig) -> dict[str, Any]:
    tasks = {"use_task_id": config.num_task_types > 0, "task_type_vocab_size": config.num_task_types}
    return {**_write_bert(config), **tasks}


def _read_albert(settings: Settings) -> dict[str, Any]:
    require(settings, {"num_hidden_groups": 1})
    inner = settings.get("inner_group_num", 1)
    bert = _read_bert({"hidden_size": 4096, "num_attention_heads": 64, "intermediate_size": 16_384, **settings})
    fields = {
        **bert,
        "vocab_size": settings.get("vocab_size", 30_000),
        "num_layers": inner * bert["num_layers"],
        "distinct_layers": inner,
        "embedding_width": settings.get("embedding_size", 128),
        "feed_forward": choose(settings, "hidden_act", ACTIVATIONS, "gelu_new"),
    }
    if fields["embedding_width"] == fields["width"]:
        raise ModelError(f"embedding_size is hidden_size, {fields['width']}; only a smaller one is supported")
    return fields


def _write_albert(config: ModelConfig) -> dict[str, Any]:
    return {
        **_write_bert(config),
        "embedding_size": config.embedding_size,
        "num_hidden_layers": config.num_layers // config.num_distinct,
        "num_hidden_groups": 1,
        "inner_group_num": config.num_distinct,
        "classifier_dropout_prob": 0.0,
    }


def _copies(prefix: str, head: str) -> dict[str, str]:
    return {
        f"{head}.decoder.weight": f"{prefix}embeddings.word_embeddings.weight",
        f"{head}.decoder.bias": f"{head}.bias",
    }


_TABLES = r".*embeddings\.(position_ids|token_type_ids)"

BERT = Layout(
    model_type="bert",
    heads=_bert_heads("Bert", "bert."),
    read=_read_bert,
    write=_write_bert,
    prefix="bert.",
    copies=_copies("bert.", "cls.predictions"),
    ignored=_TABLES,
)
ERNIE = Layout(
    model_type="ernie",
    heads=_bert_heads("Ernie", "ernie."),
    read=_read_ernie,
    write=_write_ernie,
    prefix="ernie.",
    copies=_copies("ernie.", "cls.predictions"),
    ignored=_TABLES,
)
ALBERT = Layout(
    model_type="albert",
    heads=_albert_heads(),
    read=_read_albert,
    write=_write_albert,
    prefix="albert.",
    copies=_copies("albert.", "predictions"),
    ignored=_TABLES,
)
