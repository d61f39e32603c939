"""The whole loop from the command line, as small as it goes: what it prints, what it leaves, what asking again does."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SMOKE = Path(__file__).parent / "smoke.toml"


def sanbai(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, without a network to leave by."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "http_proxy": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [Path(sys.executable).parent / "sanbai", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        check=check,
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quickstart") / "workspace"


@pytest.fixture(scope="module")
def record(workspace: Path) -> dict[str, Any]:
    done = sanbai("quickstart", "--recipe", SMOKE, "--workspace", workspace, "--no-serve", "--json")
    parsed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return parsed


def estimates(record: dict[str, Any]) -> Iterator[dict[str, float]]:
    for model in ("base", "supervised", "ppo"):
        for axis in ("helpful", "honest", "harmless", "gold_utility", "bits_per_byte"):
            yield record["evaluation"][model][axis]
    yield from record["win_rate"].values()


def test_the_record_holds_every_figure_with_its_interval(record: dict[str, Any]) -> None:
    for estimate in estimates(record):
        assert estimate["low"] <= estimate["mean"] <= estimate["high"]
        assert estimate["n"] > 0
    assert set(record["win_rate"]) == {"supervised_vs_base", "ppo_vs_supervised"}
    assert {"accuracy", "best_possible", "labeler_agreement"} <= set(record["reward_model"])
    assert {"reliability", "by_length_gap", "disagreement"} <= set(record["reward_model"])
    taught = record["reward_model"]["teachers"]["rankings"]
    assert taught["person"] == taught["model"] == 0 < taught["simulated"] < record["snapshot"]["rankings"]
    assert {"kl", "alignment_tax", "by_kind"} <= set(record)


def test_the_stages_times_are_flat_numbers_one_a_stage(record: dict[str, Any]) -> None:
    expected = {"corpus", "tokenizer", "shards", "pretrain", "demonstrations", "supervise", "sample_answers", "label"}
    expected |= {"sample_open_answers", "snapshot", "reward", "judge", "ppo", "evaluate"}
    assert set(record["seconds"]) == expected
    assert all(isinstance(seconds, float) for seconds in record["seconds"].values())


def test_simulated_labelers_answered_through_the_front_door(record: dict[str, Any]) -> None:
    snapshot = record["snapshot"]
    assert snapshot["rankings"] == snapshot["rankings_simulated"] > 0
    assert snapshot["thumbs"] > 0
    assert snapshot["draft_choices"] > 0


def test_asking_again_gives_the_same_record_without_new_rows(workspace: Path, record: dict[str, Any]) -> None:
    again = sanbai("quickstart", "--recipe", SMOKE, "--workspace", workspace, "--no-serve", "--json")
    assert json.loads(again.stdout.splitlines()[-1]) == record


def test_another_seed_in_the_same_workspace_is_refused_in_one_line(workspace: Path, record: dict[str, Any]) -> None:
    refused = sanbai("quickstart", "--recipe", SMOKE, "--workspace", workspace, "--no-serve", "--seed", 2, check=False)
    assert refused.returncode == 2
    assert "choose another --workspace" in refused.stderr.splitlines()[-1]


def test_the_gates_verdict_is_kept_and_a_person_can_overrule_it(workspace: Path, record: dict[str, Any]) -> None:
    status = json.loads(sanbai("round", "status", "--workspace", workspace, "--json").stdout.splitlines()[-1])
    assert status["rounds"][0]["verdict"]["promote"] is record["verdict"]["promote"]
    if not record["verdict"]["promote"]:
        without_reason = sanbai("round", "promote", 1, "--workspace", workspace, check=False)
        assert without_reason.returncode == 2
        assert "give --override with a reason" in without_reason.stderr
    sanbai("round", "promote", 1, "--override", "to try it", "--workspace", workspace)
    said = sanbai("round", "status", "--workspace", workspace).stdout
    assert "serving: policy-1" in said
    assert ("promoted all the same: to try it" in said) is not record["verdict"]["promote"]
    assert "serving: supervised" in sanbai("round", "rollback", "--workspace", workspace).stdout


def test_the_lineage_leads_from_the_policy_to_its_rows_of_feedback(workspace: Path, record: dict[str, Any]) -> None:
    shown = sanbai("model", "lineage", "policy-1", "--workspace", workspace, "--json")
    lineage = json.loads(shown.stdout.splitlines()[-1])
    assert [model["name"] for model in lineage["lineage"]] == ["policy-1", "supervised", "base"]
    assert lineage["feedback_rows"] >= record["snapshot"]["rankings"]


def test_a_policy_practises_by_a_group_method_against_the_rounds_judges(
    workspace: Path, record: dict[str, Any]
) -> None:
    common = (SMOKE, "--workspace", workspace, "--json")
    done = sanbai("train", "group", *common, "--name", "by-group")
    made = json.loads(done.stdout.splitlines()[-1])
    assert made["metrics"]["iterations"] == 1
    shown = json.loads((workspace / "artifacts" / made["artifact"] / "manifest.json").read_text())
    assert shown["parents"]["start"] == record["artifacts"]["supervised"]
    ppo = json.loads((workspace / "artifacts" / record["artifacts"]["policy"] / "manifest.json").read_text())
    assert {role: shown["parents"][role] for role in ("reward", "judge", "shards")} == {
        role: ppo["parents"][role] for role in ("reward", "judge", "shards")
    }
    assert "by-group" in sanbai("model", "list", "--workspace", workspace).stdout
    refused = sanbai("train", "group", *common, "--reward", "reward-1", check=False)
    assert refused.returncode == 2
    assert "--reward and --judge go together" in refused.stderr.splitlines()[-1]


def test_a_model_learns_to_judge_itself_from_the_rounds_ratings_and_is_wanted_for_candidates(
    workspace: Path, record: dict[str, Any]
) -> None:
    done = sanbai("train", "self-judge", SMOKE, "--workspace", workspace, "--json", "--name", "judging")
    metrics = json.loads(done.stdout.splitlines()[-1])["metrics"]
    assert metrics["num_answers"] > metrics["num_validation_answers"] > 0
    assert 0 <= metrics["safe_accuracy"] <= 1
    refused = sanbai("serve", "--candidates", 2, "--port", 0, "--workspace", workspace, check=False)
    assert refused.returncode == 1
    assert "does not judge its answers, and serve.candidates is 2" in refused.stderr.splitlines()[-1]


def test_a_policy_fits_the_rounds_rankings_and_its_lineage_leads_to_them(
    workspace: Path, record: dict[str, Any]
) -> None:
    done = sanbai("train", "direct", SMOKE, "--workspace", workspace, "--json", "--name", "by-rankings")
    made = json.loads(done.stdout.splitlines()[-1])
    shown = json.loads((workspace / "artifacts" / made["artifact"] / "manifest.json").read_text())
    parents = {"start": record["artifacts"]["supervised"], "snapshot": record["snapshot"]["artifact"]}
    assert shown["parents"] == parents
    lineage = sanbai("model", "lineage", "by-rankings", "--workspace", workspace, "--json")
    assert json.loads(lineage.stdout.splitlines()[-1])["feedback_rows"] >= record["snapshot"]["rankings"]


def test_the_best_of_several_answers_is_chosen_by_the_rounds_reward_model(
    workspace: Path, record: dict[str, Any]
) -> None:
    options = ("--max-new-tokens", 8, "--workspace", workspace, "--json")
    said = sanbai("generate", "Who is the baker?", "--model", "supervised", "--best-of", 4, *options).stdout
    chosen = json.loads(said.splitlines()[-1])
    assert isinstance(chosen["reward"], float)
    refused = sanbai("generate", "Who?", "--raw", "--best-of", 4, *options, check=False)
    assert refused.returncode == 2
    assert "a reward model reads conversations" in refused.stderr.splitlines()[-1]


def test_the_report_is_one_page_that_loads_nothing(workspace: Path, record: dict[str, Any]) -> None:
    page = Path(record["report"]).read_text()
    assert "<svg" in page
    assert "<script" not in page
    assert 'src="http' not in page
    assert "When to trust the reward model" in page
    assert ("Promoted by the gate" if record["verdict"]["promote"] else "Refused by the gate") in page


def test_doctor_finds_the_workspace_whole_and_names_a_damaged_artifact(workspace: Path, record: dict[str, Any]) -> None:
    assert sanbai("doctor", "--workspace", workspace).returncode == 0
    weights = workspace / "artifacts" / record["artifacts"]["base"] / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    found = sanbai("doctor", "--workspace", workspace, check=False)
    weights.write_bytes(whole)
    assert found.returncode == 1
    assert "but the manifest says" in found.stdout
