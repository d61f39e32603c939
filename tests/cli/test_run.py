"""`sanbai run start` on people's own files, as it is typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.rounds.test_practice import RECIPE, write_files

PROGRAM = str(Path(sys.executable).parent / "sanbai")


def start(folder: Path, *options: str) -> tuple[int, str, str]:
    command = [PROGRAM, "run", "start", str(folder / "own.toml"), "--workspace", str(folder / "workspace"), *options]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout, ended.stderr


def test_a_recipe_on_files_ends_in_a_table_and_one_record(tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / "own.toml").write_text(RECIPE)
    code, out, talk = start(tmp_path, "--data", str(tmp_path), "--json")
    assert code == 0, talk
    record = json.loads(out.splitlines()[-1])
    assert record["models"] == ["base", "supervised", "ppo", "ppo_without_ptx"]
    for words in ("xz -9e alone", "5-gram, Kneser-Ney", "Practised without ptx", "report: "):
        assert words in talk
    assert Path(record["report"]).is_file()


def test_a_misspelt_key_ends_with_one_line_and_nothing_made(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(RECIPE.replace("num_iterations", "num_iteration"))
    code, out, talk = start(tmp_path, "--data", str(tmp_path))
    assert code == 2
    assert out == ""
    assert "own.toml: ppo.num_iteration: unknown key; did you mean num_iterations?" in talk
    assert not (tmp_path / "workspace" / "artifacts").exists()
