"""What the phenomena of experts compute from curves, shapes and logs, against numbers by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sanbai.evaluation.language import HeldOutDocument
from sanbai.foundation.device import Compute
from sanbai.foundation.errors import ArtifactError
from sanbai.foundation.progress import SilentProgress
from sanbai.foundation.seeds import torch_generator
from sanbai.foundation.stage import Job
from sanbai.foundation.stop import StopSignal
from sanbai.foundation.workspace import Workspace
from sanbai.lab.bench import Bench, Size
from sanbai.lab.distillation import gain_kept
from sanbai.lab.sparse import SPARSE, bits_by_group, sparse_shape, speed_up, step_seconds, steps_to, trained
from sanbai.lab.trials import Phenomenon, plot
from sanbai.model.heads import LanguageModel
from sanbai.model.hugging_face import layout_for
from sanbai.model.size import count_operations, shape_of

BASELINE = [(10, 5.0), (20, 4.0), (30, 3.0), (40, 2.0)]
TWICE = [(10, 4.0), (20, 2.0), (30, 1.5), (40, 1.0)]


def test_a_level_is_reached_on_the_line_between_two_points() -> None:
    assert steps_to(BASELINE, 3.5) == 25.0
    assert steps_to(BASELINE, 5.0) == 10.0
    assert steps_to(BASELINE, 9.0) == 10.0
    assert steps_to(BASELINE, 1.9) is None
    assert steps_to([(1, 3.0), (2, 1.0), (3, 2.0)], 2.0) == 1.5


def test_who_is_where_the_baseline_ends_after_half_the_steps_is_twice_as_fast() -> None:
    assert speed_up(TWICE, BASELINE) == 2.0
    assert speed_up(BASELINE, TWICE) == 0.5
    assert speed_up(BASELINE, BASELINE) == 1.0


def test_all_shapes_do_the_same_work_a_token_but_for_the_router_and_can_be_saved() -> None:
    size = Size(width=64, num_layers=4)
    dense = count_operations(shape_of(sparse_shape(size, 0)), 128)
    for number in (1, 2, 16):
        config = sparse_shape(size, number)
        sparse = count_operations(shape_of(config), 128)
        assert sparse.total - sparse.router == dense.total
        assert layout_for(LanguageModel(config))[0].model_type == "qwen3_moe"
    assert layout_for(LanguageModel(sparse_shape(SPARSE, 0)))[0].model_type == "qwen3"


def test_one_expert_is_the_dense_layer_with_its_weights() -> None:
    size = Size(width=32, num_layers=2)
    single = LanguageModel(sparse_shape(size, 1), torch_generator(0, "tests")).eval()
    dense = LanguageModel(sparse_shape(size, 0), torch_generator(0, "tests")).eval()
    with torch.no_grad():
        known = dict(single.named_parameters())
        for name, parameter in dense.named_parameters():
            expert = name.replace("feed_forward", "experts").removesuffix(".weight")
            if name in known:
                parameter.copy_(known[name])
            else:
                parameter.copy_(known[expert][0] if expert.endswith("down") else known[expert][0].T)
    tokens = torch.arange(40).view(2, 20)
    torch.testing.assert_close(single(tokens), dense(tokens), rtol=1e-5, atol=1e-6)


def test_the_share_of_a_gain_is_nothing_at_the_dense_model_and_all_at_the_teacher() -> None:
    assert gain_kept(dense=3.0, teacher=2.0, student=3.0) == 0.0
    assert gain_kept(dense=3.0, teacher=2.0, student=2.0) == 1.0
    assert gain_kept(dense=3.0, teacher=2.0, student=2.75) == 0.25
    assert gain_kept(dense=3.0, teacher=2.0, student=3.5) == -0.5
    assert gain_kept(dense=3.0, teacher=3.0, student=2.0) == 0.0


def test_figures_of_one_unit_share_a_panel_and_only_shares_have_a_fixed_axis() -> None:
    units = {"speed": "times", "bits": "bits per byte", "more bits": "bits per byte"}
    phenomenon = Phenomenon(
        "some", "claim", lambda _: {}, ("speed", "bits", "share"), ("more bits",), units, ("of ", "times")
    )
    trials = {
        seed: {"speed": 2.0, "bits": 1.0 + seed, "more bits": 3.0, "share": 0.5, "of a": 1.0, "of b": seed}
        for seed in (1, 2)
    }
    *panels, histogram = plot(phenomenon, trials)["vconcat"]
    found = {
        panel["layer"][1]["encoding"]["x"]["title"]: (
            {value["figure"] for value in panel["data"]["values"]},
            panel["layer"][1]["encoding"]["x"]["scale"].get("domain"),
        )
        for panel in panels
    }
    assert found == {
        "times": ({"speed"}, None),
        "bits per byte": ({"bits", "more bits"}, None),
        "share": ({"share"}, [0, 1]),
    }
    assert sorted(value["value"] for value in histogram["data"]["values"]) == [1.0, 1.0, 1.0, 2]
    assert math.isclose(sum(value["value"] for value in panels[0]["data"]["values"]), 4.0)


SMALL = Size(document_bytes=60_000, vocab_size=400, width=32, num_layers=2, num_steps=2, batch_rows=2, num_texts=3)


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, Bench]:
    """Two seeds that read the text of the first."""
    workspace = Workspace(tmp_path_factory.mktemp("lab"))
    workspace.create()
    job = Job(workspace, SilentProgress(), StopSignal())
    compute = Compute(num_threads=1, precision="float32")
    return Bench(job, 1, SMALL, compute, text_seed=1), Bench(job, 2, SMALL, compute, text_seed=1)


def test_repeats_on_one_text_share_it_and_nothing_else(benches: tuple[Bench, Bench]) -> None:
    first, second = benches
    assert first.shards.id == second.shards.id != replace(second, text_seed=None).shards.id
    models = [trained(bench, sparse_shape(SMALL, 2)) for bench in benches]
    bits = [model.metrics["bits_per_byte"] for model in models]
    assert bits[0] != bits[1]
    curve = first.curve(models[0], "bits_per_byte")
    assert [step for step, _ in curve] == [1, 2]
    assert curve[-1][1] == bits[0]


def test_bits_of_a_group_are_those_of_a_pass_over_each_of_its_documents(benches: tuple[Bench, Bench]) -> None:
    bench = benches[0]
    config = sparse_shape(SMALL, 0).with_vocabulary(bench.tokenizer.vocab_size)
    model = LanguageModel(config, torch_generator(0, "tests")).eval()
    documents = [HeldOutDocument([5 * number + 300 for number in range(length)], 7 * length) for length in (9, 4, 20)]
    found = bits_by_group(bench, model, {"two": documents[:2], "one": documents[2:]})
    bits = []
    for document in documents:
        row = torch.tensor([[bench.tokenizer.reserved.end_of_text, *document.tokens]])
        with torch.no_grad():
            logprob = model(row)[0, :-1].double().log_softmax(-1)
        bits.append(-logprob.gather(-1, row[0, 1:, None]).sum().item() / math.log(2))
    assert found["two"] == pytest.approx((bits[0] + bits[1]) / (7 * 13), rel=1e-5)
    assert found["one"] == pytest.approx(bits[2] / (7 * 20), rel=1e-5)


def test_a_model_that_diverged_counts_the_bits_of_a_coin(benches: tuple[Bench, Bench]) -> None:
    bench = benches[0]
    config = sparse_shape(SMALL, 0).with_vocabulary(bench.tokenizer.vocab_size)
    model = LanguageModel(config, torch_generator(0, "tests")).eval()
    with torch.no_grad():
        model.get_parameter("trunk.norm.weight").fill_(math.nan)
    assert bits_by_group(bench, model, {"all": [HeldOutDocument([300, 301], 5)]}) == {"all": 8.0}


def test_steps_are_timed_for_every_shape_and_leave_no_model_behind(benches: tuple[Bench, Bench]) -> None:
    folder = benches[0].job.workspace.artifacts
    before = sorted(folder.iterdir())
    seconds = step_seconds(benches[0], {str(number): sparse_shape(SMALL, number) for number in (0, 2)})
    assert seconds.keys() == {"0", "2"}
    assert sorted(folder.iterdir()) == before


def test_a_curve_whose_run_is_gone_is_said_to_be(benches: tuple[Bench, Bench]) -> None:
    with pytest.raises(ArtifactError, match="remove the artifact as well"):
        benches[0].curve(benches[0].shards, "bits_per_byte")
