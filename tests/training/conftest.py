from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sanbai.data.conversations import Conversation
from sanbai.data.packing import EncodedItems
from sanbai.foundation.device import Compute
from sanbai.foundation.parallel import use_threads
from sanbai.foundation.progress import SilentProgress
from sanbai.foundation.run import Run
from sanbai.foundation.seeds import torch_generator
from sanbai.foundation.stage import Job, Stage
from sanbai.foundation.stop import StopSignal
from sanbai.foundation.workspace import Workspace
from sanbai.model.config import ModelConfig
from sanbai.model.heads import LanguageModel
from sanbai.text.tokenizer import Tokenizer, train_tokenizer
from sanbai.training.supervise import encode_demonstrations

NAMES = ("Anna", "Bert", "Cleo", "Dora", "Emil")
TRADES = ("baker", "miller", "smith", "weaver", "potter")

Open = Callable[..., Stage]
Train = Callable[[Stage], Any]


class KilledError(Exception):
    """Stands for kill -9: nothing is saved on the way out."""


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets how many parts are computed at a time, until the test ends."""
    yield use_threads
    use_threads(1)


@pytest.fixture(scope="session")
def compute() -> Compute:
    return Compute(num_threads=1, precision="float32")


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer([f"{name} is a {trade}." for name in NAMES for trade in TRADES] * 3, vocab_size=300)


@pytest.fixture(scope="session")
def config(tokenizer: Tokenizer) -> ModelConfig:
    return ModelConfig(
        vocab_size=tokenizer.vocab_size,
        num_layers=2,
        width=32,
        num_heads=2,
        num_kv_heads=2,
        head_width=16,
        feed_forward_width=64,
        max_positions=64,
        initial_std=0.1,
    )


@pytest.fixture
def model(config: ModelConfig) -> LanguageModel:
    return LanguageModel(config, torch_generator(0, "tests"))


@pytest.fixture(scope="session")
def demonstrations() -> list[Conversation]:
    return [
        Conversation(
            str(number),
            (
                {"role": "user", "content": f"What is {name}?"},
                {"role": "assistant", "content": f"{name} is a {trade}."},
            ),
        )
        for number, (name, trade) in enumerate(zip(NAMES, TRADES, strict=True))
    ]


@pytest.fixture(scope="session")
def items(tokenizer: Tokenizer, demonstrations: list[Conversation]) -> EncodedItems:
    return encode_demonstrations(tokenizer, demonstrations, row_length=64)


@pytest.fixture
def open_stage(tmp_path: Path) -> Iterator[Open]:
    """Opens a stage over a folder of its own; the same name opens the same run again."""
    runs = []

    def open_(name: str = "stage", *, seed: int = 1) -> Stage:
        folder = tmp_path / name
        (folder / "artifact").mkdir(parents=True, exist_ok=True)
        job = Job(Workspace(tmp_path), SilentProgress(), StopSignal())
        run = Run(folder / "run", SilentProgress().task(name, 1), job.stop)
        runs.append(run)
        return Stage("stage", folder / "artifact", run, seed, {}, job)

    yield open_
    for run in runs:
        run.close()


@pytest.fixture
def outcome_after_kills(open_stage: Open, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Tensor]]:
    """Runs a training, killed without warning when it records the given steps, and returns the final weights."""

    def run(train: Train, name: str, kills: tuple[int, ...] = ()) -> dict[str, Tensor]:
        for fatal in kills:
            stage = open_stage(name)
            record = stage.run.record

            def fragile(step: int, *, _record: Any = record, _fatal: int = fatal, **metrics: float) -> None:
                if step == _fatal:
                    raise KilledError
                _record(step, **metrics)

            monkeypatch.setattr(stage.run, "record", fragile)
            with pytest.raises(KilledError):
                train(stage)
        stage = open_stage(name)
        train(stage)
        return load_file(stage.folder / "model.safetensors")

    return run


def assert_same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
