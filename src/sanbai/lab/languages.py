"""Experts help every language of a multilingual model (Fedus et al. 2021, arXiv:2101.03961, section 4.3).

The paper: of 101 languages all improve, 91 % reach the dense model's quality at least 4 times sooner. Here twelve
invented languages (`world/languages.py`), each document in one of them, are read by a dense model and by one with eight
experts at equal work a token. Control: a single expert, which is dense, so that about half of the languages improve by
chance and none is sped up.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

from sanbai.evaluation.language import HeldOutDocument
from sanbai.foundation.artifacts import Artifact
from sanbai.foundation.files import read_jsonl
from sanbai.lab.bench import Bench
from sanbai.lab.sparse import SPARSE, bits_by_group, sparse_shape, speed_up, training
from sanbai.lab.trials import Phenomenon
from sanbai.model.heads import LanguageModel

NUM_LANGUAGES = 12
NUM_EXPERTS = 8
MUCH_SOONER = 4.0
SOONER = "speed-up of "
_READERS = {"8 experts": NUM_EXPERTS, "1 expert": 1}


def heldout_by_language(bench: Bench) -> dict[str, list[HeldOutDocument]]:
    """Return the first held-out documents of each language; a language without any is left out."""
    groups: dict[str, list[HeldOutDocument]] = {}
    for row in read_jsonl(bench.corpus.file("validation.jsonl.gz")):
        documents = groups.setdefault(row["language"], [])
        if len(documents) < bench.size.num_texts:
            text = row["text"]
            documents.append(HeldOutDocument(bench.tokenizer.encode(text), len(text.encode())))
    return dict(sorted(groups.items()))


def measure(bench: Bench) -> dict[str, float]:
    """Train the models and return the figures, and each language's speed-up by the eight experts."""
    bench = replace(bench, num_languages=NUM_LANGUAGES)
    groups = heldout_by_language(bench)

    def evaluate(model: LanguageModel) -> dict[str, float]:
        return bits_by_group(bench, model, groups)

    def reader(num_experts: int) -> Artifact:
        config = sparse_shape(bench.size, num_experts)
        return bench.pretrained(config, evaluate=evaluate, **training(bench.size))

    dense = reader(0)
    figures: dict[str, float] = {}
    for name, num_experts in _READERS.items():
        model = reader(num_experts)
        speed_ups = {
            language: speed_up(bench.curve(model, language), bench.curve(dense, language)) for language in groups
        }
        gains = [dense.metrics[language] - model.metrics[language] for language in groups]
        figures[f"languages that improve, {name}"] = fmean(gain > 0 for gain in gains)
        figures[f"languages 4 times as fast, {name}"] = fmean(times >= MUCH_SOONER for times in speed_ups.values())
        figures[f"mean speed-up, {name}"] = fmean(speed_ups.values())
        if num_experts > 1:
            figures |= {SOONER + language: times for language, times in speed_ups.items()}
    return figures


def _names(reader: str) -> tuple[str, ...]:
    figures = ("languages that improve", "languages 4 times as fast", "mean speed-up")
    return tuple(f"{figure}, {reader}" for figure in figures)


LANGUAGES = Phenomenon(
    name="languages",
    claim="Experts help every language (mSwitch, arXiv:2101.03961: all 101, 91 % of them 4 times as fast).",
    measure=measure,
    effect=_names("8 experts"),
    control=_names("1 expert"),
    units={f"mean speed-up, {reader}": "times as fast as dense" for reader in _READERS},
    histogram=(SOONER, "times as fast as dense"),
    size=replace(SPARSE, vocab_size=2400, num_steps=500, num_texts=10),
)
