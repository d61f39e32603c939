"""The command line as a person meets it."""

import subprocess
import sys
from pathlib import Path

import pytest

from sanbai.cli.main import COMMANDS

PROGRAM = Path(sys.executable).parent / "sanbai"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_help_lists_every_command_in_the_order_of_the_pipeline() -> None:
    shown = run("--help").stdout
    places = [shown.index(f"  {name} ") for name in COMMANDS]
    assert places == sorted(places)


def test_help_imports_no_heavy_library() -> None:
    script = "import sys; sys.argv = ['sanbai', '--help']\n"
    script += "from sanbai.cli.main import main\ntry: main()\nexcept SystemExit: pass\n"
    script += "print(sorted({'torch', 'numpy', 'sqlalchemy', 'starlette', 'rich'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help(name: str) -> None:
    shown = run(name, "--help")
    assert shown.returncode == 0
    assert "Usage: sanbai" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("run", "start", "nothing.toml"), 2, "nothing.toml: no such recipe"),
        (("model", "show", "nobody"), 2, "nobody: no such model; known: none"),
        (("round", "promote", "7"), 2, "round 7: no such round"),
        (("round", "run"), 2, "no round was made here yet; start with `sanbai quickstart`"),
        (("round", "run", "--recipe", "real"), 2, 'rounds need material = "world"'),
        (("round", "run", "--recipe", "quickstart", "--simulated-labelers", 5), 2, "5 simulated labelers; wanted "),
        (("round", "rollback"), 2, "nothing to roll back to"),
        (("run", "start", "quickstart", "--data", "/"), 2, "reads no files; leave it out"),
        (("data", "build", "quickstart", "--data", "/"), 2, "reads no files; leave it out"),
        (("tokenizer", "train", "quickstart", "--data", "/"), 2, "reads no files; leave it out"),
        (("train", "pretrain", "quickstart", "--data", "/"), 2, "reads no files; leave it out"),
        (("train", "distill", "quickstart"), 2, "quickstart: the teacher of [distill] wants experts"),
        (("train", "group", "quickstart"), 2, "no reward model: rankings of the tiny world come from a round"),
        (("train", "expert-iteration", "quickstart"), 2, "or name models with --reward and --judge"),
        (("train", "self-judge", "quickstart"), 2, "no round has frozen rankings yet"),
        (("serve", "--candidates", 2, "--backend", "http://127.0.0.1:9/v1"), 2, "does not judge candidates"),
        (("train", "supervise", "quickstart", "--judge", "a"), 2, "--reward and --judge are for reject, group"),
        (("run", "start", "elsewhere/quickstart"), 2, "elsewhere/quickstart: no such recipe"),
        (("run", "show", "nothing"), 2, "nothing: 0 runs begin so"),
        (("train", "pretrain", "real", "--data", "nowhere"), 1, "nowhere/"),
        (("serve", "--backend", "ftp://models/v1"), 2, "--backend: backend: wanted http://HOST:PORT/v1"),
        (("serve", "--backend", "http://127.0.0.1:9/v1", "--model", "base"), 2, "--backend: it answers alone"),
        (("serve", "--port", 0, "--backend", "http://127.0.0.1:9/v1", "--backend-key-variable", "NO_KEY"), 2, "NO_KEY"),
        (("generate", "hello"), 2, "served: no such model; known: none"),
        (("train", "direct", "quickstart"), 2, "no round has frozen rankings yet; finish one with"),
        (("train", "reject", "quickstart"), 2, "no reward model: rankings of the tiny world come from a round"),
        (("chat", "--model", "nobody"), 2, "nobody: no such model; known: none"),
        (("evaluate", "base"), 2, "no round was made here yet"),
        (("tokenizer", "encode", "hello"), 2, "served: no such model"),
        (("model", "lineage", "served"), 2, "served: no such model"),
        (("account", "key", "nobody"), 2, "nobody: no such account"),
    ],
)
def test_a_mistake_is_one_line_with_the_next_step(
    tmp_path: Path, arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    refused = run(*arguments, "--workspace", tmp_path)
    assert refused.returncode == code
    assert complaint in refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr


def test_a_misspelt_recipe_key_stops_before_anything_is_made(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text("[ppo]\nkl_coeff = 0.1\n")
    refused = run("run", "start", recipe, "--workspace", tmp_path / "workspace")
    assert refused.returncode == 2
    assert refused.stderr.strip() == f"sanbai: error: {recipe}: ppo.kl_coeff: unknown key; did you mean kl_coef?"
    assert not (tmp_path / "workspace").exists()


def test_a_port_in_use_is_one_line_before_any_work(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = run("quickstart", "--port", taken.getsockname()[1], "--workspace", tmp_path / "workspace")
    assert refused.returncode == 1
    assert "choose another --port" in refused.stderr.splitlines()[-1]
    assert not (tmp_path / "workspace").exists()


def test_the_tiny_world_is_not_written_where_there_is_no_folder(tmp_path: Path) -> None:
    refused = run("data", "world", tmp_path / "nowhere" / "world.jsonl", "--megabytes", 0.01)
    assert refused.returncode == 2
    assert "nowhere: no such folder" in refused.stderr
    written = run("data", "world", tmp_path / "world.jsonl", "--megabytes", 0.01)
    assert written.returncode == 0, written.stderr
    assert (tmp_path / "world.jsonl").read_text().count("\n") > 10
