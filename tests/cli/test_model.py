"""The table of presets, as the command prints it."""

from __future__ import annotations

import json

from click.testing import CliRunner

from sanbai.cli.main import cli


def test_presets_stand_side_by_side_with_their_parameters() -> None:
    result = CliRunner().invoke(cli, ["model", "list", "--presets", "--json"])
    assert result.exit_code == 0, result.output
    *lines, record = result.output.splitlines()
    row = next(line for line in lines if line.startswith("gpt3-175b"))
    assert row.split()[1:5] == ["174,604.3M", "96", "12288", "96"]
    assert row.endswith("learned causal+banded")
    assert next(line for line in lines if line.startswith("switch-c")).endswith("2048, all")
    assert len(json.loads(record)) == len(lines) - 1
