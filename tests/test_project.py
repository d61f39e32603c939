"""What holds for the repository as a whole: nothing of one machine in it, lazy imports, floors, docstrings, the map."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sanbai.foundation.source import FLOORS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/sanbai"
MODULES = sorted(PACKAGE.rglob("*.py"))

LOCK_FILES = re.compile(
    r"(uv|poetry|pdm|Pipfile|conda|yarn|Cargo)[.-]lock.*|pylock.*\.toml|package-lock\.json|pnpm-lock.*"
)
REGISTRY = re.compile(r"https?://[^\s\"'<>)]*(/simple/|registry|/packages/)|--(extra-)?(index-url|find-links)")
MACHINE_PATH = re.compile(r"(?<![\w.~*-])/(home|Users|root|work|opt|mnt|scratch)/\w|[A-Z]:\\\\?Users")


def run_python(code: str, *, cwd: Path) -> str:
    """Standard output of a fresh interpreter."""
    finished = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def tracked_files() -> list[Path]:
    """The files under version control; the test is skipped in a copy without it."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def lines_matching(pattern: re.Pattern[str]) -> list[str]:
    """`file:line: match` wherever a tracked text file matches."""
    found = []
    for path in tracked_files():
        try:
            content = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(ROOT)}:{content.count(chr(10), 0, match.start()) + 1}: {match.group()}"
            for match in pattern.finditer(content)
        ]
    return found


def test_no_file_names_a_package_registry() -> None:
    assert lines_matching(REGISTRY) == []


def test_no_file_names_a_path_of_one_machine() -> None:
    assert lines_matching(MACHINE_PATH) == []


def test_no_lock_file_is_committed() -> None:
    assert [path.name for path in tracked_files() if LOCK_FILES.fullmatch(path.name)] == []


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (REGISTRY, "see https:" + "//mirror.example/simple/torch"),
        (REGISTRY, "pip install -" + "-index-url x"),
        (MACHINE_PATH, "in /" + "home/someone/project"),
        (LOCK_FILES, "uv.lock"),
    ],
)
def test_the_patterns_above_do_find_what_they_forbid(pattern: re.Pattern[str], text: str) -> None:
    assert pattern.search(text)


def test_importing_the_package_imports_no_torch(tmp_path: Path) -> None:
    assert run_python("import sys, sanbai; print('torch' in sys.modules)", cwd=tmp_path) == "False\n"


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = """
import sys
from sanbai.cli.main import main
sys.argv = ["sanbai", "--help"]
try:
    main()
except SystemExit as leaving:
    assert not leaving.code
heavy = {"torch", "numpy", "tokenizers", "transformers", "pydantic", "sqlalchemy", "starlette", "vl_convert", "rich"}
print(sorted(heavy & set(sys.modules)))
"""
    assert run_python(code, cwd=tmp_path).splitlines()[-1] == "[]"


def test_importing_every_module_prints_nothing_and_leaves_no_file(tmp_path: Path) -> None:
    names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in MODULES]
    code = f"import importlib, torch\nthreads = torch.get_num_threads()\nfor name in {names!r}:\n"
    code += "    if not name.endswith('__main__'): importlib.import_module(name.removesuffix('.__init__'))\n"
    code += "assert torch.get_num_threads() == threads and not torch.are_deterministic_algorithms_enabled()"
    assert run_python(code, cwd=tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def is_overload(node: ast.AST) -> bool:
    """Whether it is one signature of several; the function itself, which follows, is documented."""
    return any(isinstance(each, ast.Name) and each.id == "overload" for each in getattr(node, "decorator_list", []))


def undocumented(path: Path) -> Iterator[str]:
    """Names of the public module, classes, functions and methods in a file that have no docstring."""
    Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not ast.get_docstring(tree):
        yield "module"
    for node in tree.body:
        if not isinstance(node, Documented) or node.name.startswith("_") or is_overload(node):
            continue
        if not ast.get_docstring(node):
            yield node.name
        for inner in node.body if isinstance(node, ast.ClassDef) else []:
            if isinstance(inner, Documented) and not inner.name.startswith("_") and not ast.get_docstring(inner):
                yield f"{node.name}.{inner.name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_public_name_has_a_docstring(path: Path) -> None:
    assert list(undocumented(path)) == []


def layers() -> list[str]:
    """The floors as the import linter knows them, from the ground up."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"][0]
    return [name.removeprefix("sanbai.") for name in reversed(contract["layers"])]


def test_imports_point_down_the_house() -> None:
    checker = Path(sys.executable).with_name("lint-imports")
    finished = subprocess.run([checker, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_every_folder_is_a_floor_and_the_fingerprint_knows_the_same_order() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(layers())
    assert [floor for floor in FLOORS if floor in folders] == layers()


def test_every_floor_is_on_the_map_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    if not readme:
        pytest.skip("the README is not written yet")
    assert [floor for floor in layers() if f"{floor}/" not in readme] == []
