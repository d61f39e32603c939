"""Every tiny recipe that ships, made smaller still, runs through its stages and leaves models that load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.rounds.test_recipes import FOLDER, SCALES

from sanbai.data.labeled import LabeledSource
from sanbai.foundation.progress import SilentProgress
from sanbai.foundation.recipe import read_toml, validate_recipe
from sanbai.foundation.stage import Job
from sanbai.foundation.stop import StopSignal
from sanbai.foundation.workspace import Workspace
from sanbai.model.hugging_face import load_model
from sanbai.model.reading_heads import Classifier
from sanbai.rounds.material import FilesMaterial, WorldMaterial
from sanbai.rounds.pipeline import Pipeline
from sanbai.rounds.recipe import Recipe

HELDOUT = {
    "causal": {"bits_per_byte"},
    "prefix": {"heldout_loss"},
    "masked": {"masked_loss", "masked_accuracy", "next_sentence_loss", "next_sentence_accuracy"},
    "entity_masked": {"masked_loss", "masked_accuracy", "next_sentence_loss", "next_sentence_accuracy"},
    "span_corruption": {"written_loss"},
}


def smaller(name: str) -> Recipe:
    values: dict[str, Any] = read_toml(FOLDER / f"{name}.toml")
    values |= {"num_examples": 16, "num_heldout_examples": 8, "num_demonstrations": 20}
    values["compute"] = {"num_threads": 1, "precision": "float32"}
    values["world"]["document_bytes"] = 60_000
    values["tokenizer"]["vocab_size"] = 420
    values["model"] |= {"width": 32, "num_heads": 2, "num_kv_heads": 2, "head_width": 16, "feed_forward_width": 128}
    values["pretrain"] |= {"num_steps": 2, "batch_rows": 2}
    if "distill" in values:
        values["distill"] |= {"num_steps": 2, "batch_rows": 2}
    for section in ("classify", "supervise"):
        if section in values:
            values[section] |= {"num_epochs": 1.0, "batch_rows": 8}
    return validate_recipe(Recipe, values, source=name)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    workspace = Workspace(tmp_path)
    workspace.create()
    return Job(workspace, SilentProgress(), StopSignal())


@pytest.mark.parametrize("name", SCALES)
def test_a_tiny_recipe_runs_through_its_stages(name: str, job: Job) -> None:
    recipe = smaller(name)
    pipeline = Pipeline(job, recipe, WorldMaterial(recipe))
    corpus = pipeline.corpus()
    tokenizer = pipeline.tokenizer(corpus)
    shards = pipeline.shards(corpus, tokenizer)
    base = pipeline.base(tokenizer, shards)
    assert base.metrics.keys() >= HELDOUT[recipe.pretrain.objective]
    assert load_model(base.path).config.vocab_size == 420
    sections = read_toml(FOLDER / f"{name}.toml")
    if "classify" in sections:
        classifier = pipeline.classifier(base, pipeline.labeled())
        assert isinstance(load_model(classifier.path), Classifier)
        assert classifier.metrics["classes"] == ["afraid", "angry", "happy", "sad"]
    if "supervise" in sections:
        supervised = pipeline.supervised(base, shards, pipeline.demonstrations())
        assert supervised.metrics["demonstrations"] > 0


def test_a_model_with_experts_is_distilled_into_a_dense_one_that_transformers_knows(job: Job) -> None:
    recipe = smaller("distill-tiny")
    pipeline = Pipeline(job, recipe, WorldMaterial(recipe))
    corpus = pipeline.corpus()
    tokenizer = pipeline.tokenizer(corpus)
    shards = pipeline.shards(corpus, tokenizer)
    teacher = pipeline.base(tokenizer, shards)
    assert load_model(teacher.path).config.sparse_layers == "every_second"
    student = pipeline.student(teacher, shards)
    assert student.metrics["bits_per_byte"] > 0
    assert load_model(student.path).config.sparse_layers == "none"
    assert json.loads((student.path / "config.json").read_text())["model_type"] == "qwen3"
    assert student.manifest["parents"] == {"teacher": teacher.name, "shards": shards.name}
    assert Pipeline(job, recipe, WorldMaterial(recipe)).student(teacher, shards).id == student.id


def test_names_classes_and_instructions_are_read_from_own_files(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("Elm Lane\n\nAnna\n")
    rows = [{"text": f"text {number}", "label": number % 2, "answer": "yes"} for number in range(200)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values: dict[str, Any] = {
        "material": "files",
        "num_demonstrations": 30,
        "files": {
            "documents": [{"path": "rows.jsonl"}],
            "names": ["names.txt"],
            "labeled": [LabeledSource(path="rows.jsonl").model_dump()],
            "instructions": [{"name": "yes", "path": "rows.jsonl", "templates": [["Is it {text}?", "{answer}"]]}],
            "heldout_share": 0.25,
        },
    }
    material = FilesMaterial(validate_recipe(Recipe, values, source="own"), tmp_path)
    assert material.names() == ("Elm Lane", "Anna")
    splits = material.labeled()
    assert len(splits.train) + len(splits.heldout) == 200
    assert 20 < len(splits.heldout) < 80
    conversations = material.demonstrations()
    assert len(conversations) == 30
    assert conversations[0].messages[1]["content"] == "yes"
    assert set(material.fingerprint()) == {"names.txt", "rows.jsonl"}


def test_the_worlds_instructions_are_single_faultless_questions() -> None:
    recipe = smaller("flan-tiny").model_copy(update={"num_demonstrations": 60})
    conversations = WorldMaterial(recipe).demonstrations()
    assert len(conversations) == 60
    assert all([turn["role"] for turn in one.messages] == ["user", "assistant"] for one in conversations)
    assert len({one.source for one in conversations}) > 5
