"""What the phenomena of experts compute from curves, shapes and logs, against numbers by hand."""

from __future__ import annotations

import math

import torch

from sanbai.foundation.seeds import torch_generator
from sanbai.lab.bench import Size
from sanbai.lab.distillation import gain_kept
from sanbai.lab.sparse import SPARSE, sparse_shape, speed_up, steps_to
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
            parameter.copy_(known[name] if name in known else known[expert][0].T)
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
