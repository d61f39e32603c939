"""The phenomena at a size that shows only that everything runs, is resumed, and is written; not the effects."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sanbai.data.labeled import LabeledText
from sanbai.data.masking import MaskedBatch
from sanbai.foundation.device import Compute
from sanbai.foundation.progress import SilentProgress
from sanbai.foundation.stage import Job
from sanbai.foundation.stop import StopSignal
from sanbai.foundation.workspace import Workspace
from sanbai.lab import adapters
from sanbai.lab.bench import Bench, Size, shape
from sanbai.lab.clozes import causal_accuracy, masked_accuracy, trade_clozes
from sanbai.lab.next_sentence import given_round
from sanbai.lab.registry import PHENOMENA
from sanbai.lab.transfer import SIZE, labeled_words
from sanbai.lab.trials import Phenomenon, run_trials
from sanbai.model.heads import LanguageModel
from sanbai.text.reserved import READING_MARKERS
from sanbai.text.tokenizer import Tokenizer, train_tokenizer
from sanbai.world.lexicon import TRADE_WORK
from sanbai.world.tasks.classifying import GROUPS

#: What stands before a word that is not meant.
DENIALS = ("not about", "Not", "never of", "instead of", "Instead of", "no")
SMOKE = Size(
    document_bytes=60_000,
    vocab_size=400,
    width=32,
    num_layers=2,
    num_steps=3,
    batch_rows=2,
    num_texts=6,
    num_demonstrations=24,
)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    workspace = Workspace(tmp_path_factory.mktemp("lab"))
    workspace.create()
    return Job(workspace, SilentProgress(), StopSignal())


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = [f"Anna is a {trade}. She {work}." for trade, work in TRADE_WORK.items()]
    return train_tokenizer(texts * 9, vocab_size=420, extra_markers=tuple(READING_MARKERS.values()))


@pytest.mark.parametrize("name", PHENOMENA)
def test_a_phenomenon_runs_writes_its_record_and_plot_and_is_not_measured_again(
    name: str, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = Compute(num_threads=1, precision="float32")
    record = run_trials(job, PHENOMENA[name], seeds=(1,), size=SMOKE, compute=compute)
    folder = job.workspace.root / "lab"
    assert json.loads((folder / f"{name}.json").read_text()) == record
    assert record["means"].keys() == {*PHENOMENA[name].effect, *PHENOMENA[name].control}
    assert all(0.0 <= value <= 1.0 for figure, value in record["means"].items() if figure not in PHENOMENA[name].units)
    svg = (folder / f"{name}.svg").read_text()
    assert svg.startswith("<svg")
    assert PHENOMENA[name].effect[0].split()[0] in svg

    def never(_: Bench) -> dict[str, float]:
        raise AssertionError("measured again")

    known = PHENOMENA[name]
    again = Phenomenon(known.name, known.claim, never, known.effect, known.control)
    assert run_trials(job, again, seeds=(1,), size=SMOKE, compute=compute) == record


@pytest.mark.parametrize("way", ["lora", "p_tuning", "prefix"])
def test_an_adapter_at_the_reported_size_learns_under_a_fiftieth_of_the_parameters(way: adapters.Way) -> None:
    config = shape(SIZE, norm_place="after").with_vocabulary(SIZE.vocab_size)
    base = LanguageModel(config, torch.Generator().manual_seed(1))
    before = [parameter.detach() for parameter in base.parameters()]
    learner, total = adapters.prepare(base, num_classes=6, way=way, seed=1)
    learned = {name: parameter.numel() for name, parameter in learner.named_parameters() if parameter.requires_grad}
    assert total == sum(map(Tensor.numel, before)) + 6 * config.width
    assert "classifier.head.weight" in learned
    # By hand: rank 2 beside 160 to 480, 160 to 640 and 640 to 160 in 3 layers; 20 vectors and 160-48-48-160;
    # 20 keys and values in 3 layers.
    by_hand = {
        "lora": 3 * 2 * (160 + 480 + 160 + 640 + 640 + 160),
        "p_tuning": 20 * 160 + (160 * 48 + 48) + (48 * 48 + 48) + (48 * 160 + 160),
        "prefix": 20 * 3 * 2 * 160,
    }
    assert sum(learned.values()) == by_hand[way] + 6 * 160
    assert sum(learned.values()) < adapters.SHARE * total


def test_adapters_learn_labels_that_can_be_learned_and_the_base_stays(job: Job) -> None:
    bench = Bench(job, 1, SMOKE, Compute(num_threads=1, precision="float32"))
    texts = [LabeledText(str(n), word, word) for n, word in enumerate(("bread", "mill", "painting") * 4)]
    config = shape(SMOKE, norm_place="after").with_vocabulary(bench.tokenizer.vocab_size)
    base = LanguageModel(config, torch.Generator().manual_seed(1))
    before = [parameter.detach().clone() for parameter in base.parameters()]
    for way in adapters.RATES:
        learnt = adapters.tuned(bench, base, way, texts, texts, num_steps=200)
        assert learnt.accuracy == 1.0, way
        assert (learnt.learned == learnt.total) == (way == "full")
        assert adapters.tuned(bench, base, way, texts, texts, num_steps=0).accuracy < 1.0
    assert all(torch.equal(old, new) for old, new in zip(before, base.parameters(), strict=True))


def test_a_trial_of_another_size_is_measured_anew(job: Job) -> None:
    sizes: list[int] = []

    def count(bench: Bench) -> dict[str, float]:
        sizes.append(bench.size.num_steps)
        return {"figure": 0.5}

    phenomenon = Phenomenon("counted", "nothing", count, ("figure",), ())
    for steps in (1, 1, 2):
        record = run_trials(job, phenomenon, seeds=(1, 2), size=Size(num_steps=steps))
    assert sizes == [1, 1, 2, 2]
    assert record["size"] == asdict(Size(num_steps=2))


class Told(nn.Module):
    """A model that puts the trade whose work the row tells at every place, if it may look right; else evenly."""

    def __init__(self, tokenizer: Tokenizer, *, looks_right: bool) -> None:
        super().__init__()
        self.tokenizer, self.looks_right = tokenizer, looks_right

    def forward(self, tokens_BT: Tensor, segments_BT: Tensor) -> Tensor:
        logits = torch.zeros(*tokens_BT.shape, self.tokenizer.vocab_size)
        for row, tokens in enumerate(tokens_BT.tolist()):
            for place in range(len(tokens)):
                visible = tokens if self.looks_right else tokens[: place + 1]
                text = self.tokenizer.decode(visible)
                for trade, work in TRADE_WORK.items():
                    if work in text:
                        logits[row, place, self.tokenizer.encode(trade)] = 5.0
        return logits


def test_only_who_looks_right_fills_a_gap_that_the_right_side_tells(tokenizer: Tokenizer) -> None:
    both, back = Told(tokenizer, looks_right=True), Told(tokenizer, looks_right=False)
    right, left, wrong = (trade_clozes(["Anna", "Otto"], 12, 1, told=told) for told in ("right", "left", "wrong"))
    assert masked_accuracy(both, tokenizer, right) == 1.0  # type: ignore[arg-type]
    assert masked_accuracy(both, tokenizer, wrong) == 0.0  # type: ignore[arg-type]
    assert causal_accuracy(back, tokenizer, right, whole=False) < 0.5  # type: ignore[arg-type]
    assert causal_accuracy(back, tokenizer, left, whole=False) == 1.0  # type: ignore[arg-type]


def test_given_round_pairs_keep_their_second_texts_and_labels(tokenizer: Tokenizer) -> None:
    rows = np.array([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0], [9, 10, 11, 12, 0]])
    types = np.array([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0], [0, 0, 0, 1, 0]])
    segments = np.array([[1] * 5, [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
    labels = np.array([0, 1, 0])
    batch = MaskedBatch(rows, segments, rows, types, rows, rows > 0, labels)
    moved = given_round(batch, tokenizer)
    pad = tokenizer.reserved.pad
    wanted = [[9, 10, 11, 3, 4, 5], [1, 2, 7, 8, pad, pad], [6, 12, pad, pad, pad, pad]]
    assert moved.targets_BT.tolist() == wanted
    assert moved.types_BT.tolist() == [[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 0, 0], [0, 1, 0, 0, 0, 0]]
    assert moved.unrelated_B is labels


def test_a_choice_is_labelled_with_the_group_of_the_word_that_is_meant() -> None:
    for text in adapters.labeled_choices(("Anna",), 200, 1, heldout=False):
        denied = {word for word in re.findall(r"[\w-]+", text.text) if word not in GROUPS[text.label]}
        named = {word for word in denied for group, words in GROUPS.items() if word in words and group != text.label}
        assert len(named) == 1, text.text
        (other,) = named
        assert any(f"{mark} {other}" in text.text for mark in DENIALS), text.text


@pytest.mark.parametrize("texts", [labeled_words, adapters.labeled_choices])
def test_the_measured_words_are_never_labelled(texts: Callable[..., list[LabeledText]]) -> None:
    sides = [texts(("Anna",), 300, 1, heldout=heldout) for heldout in (False, True)]
    every = {word for words in GROUPS.values() for word in words}
    words = [every.intersection(word.strip(",:.?") for text in side for word in text.text.split()) for side in sides]
    assert words[0]
    assert words[1]
    assert not words[0] & words[1]
    assert {text.label for text in sides[0]} == {text.label for text in sides[1]} == set(GROUPS)
