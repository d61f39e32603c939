"""The core install stays small, and every run-time dependency has been argued for."""

import ast
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LARGEST_INSTALL = 45
#: What torch's GPU builds add on Linux; the limit is for the CPU build (docs/decisions/0001-torch.md).
GPU_BUILD = re.compile(r"nvidia-.*|cuda-.*|triton|pytorch-triton.*")


def required_by(name: str, extras: frozenset[str]) -> list[Requirement]:
    """What a distribution asks for on this machine, with the given extras."""
    requirements = [Requirement(line) for line in metadata.requires(name) or []]
    return [
        requirement
        for requirement in requirements
        if requirement.marker is None
        or any(requirement.marker.evaluate({"extra": extra}) for extra in extras or frozenset({""}))
    ]


def installed_with(name: str) -> set[str]:
    """Names of all packages that installing `name` without extras brings along, itself included."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(canonicalize_name(name), frozenset[str]())]
    while waiting:
        package, extras = waiting.pop()
        if (package, extras) in seen:
            continue
        seen.add((package, extras))
        waiting += [
            (canonicalize_name(requirement.name), frozenset(requirement.extras))
            for requirement in required_by(package, extras)
            if not GPU_BUILD.fullmatch(canonicalize_name(requirement.name))
        ]
    return {str(package) for package, _ in seen}


def test_the_walk_finds_what_is_asked_for_at_one_and_two_removes() -> None:
    found = installed_with("sanbai")
    assert {"sanbai", "torch", "jinja2", "markupsafe", "huggingface-hub"} <= found
    assert not {"pytest", "transformers", "psycopg"} & found, "extras are not part of the core"


def test_the_core_install_has_at_most_45_packages() -> None:
    found = installed_with("sanbai")
    assert len(found) <= LARGEST_INSTALL, sorted(found)


@pytest.mark.parametrize("requirement", required_by("sanbai", frozenset()), ids=lambda requirement: requirement.name)
def test_every_run_time_dependency_has_a_decision(requirement: Requirement) -> None:
    names = [re.sub(r"^\d{4}-", "", path.stem) for path in (ROOT / "docs/decisions").glob("*.md")]
    assert canonicalize_name(requirement.name) in names


def imported_distributions() -> set[str]:
    """Canonical names of the distributions that the source imports, anywhere in a file."""
    modules: set[str] = set()
    for path in (ROOT / "src/sanbai").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.split(".")[0])
    owners = metadata.packages_distributions()
    others = modules - sys.stdlib_module_names - {"sanbai"}
    return {str(canonicalize_name(owners.get(module, [module])[0])) for module in others}


def test_what_the_source_imports_is_what_is_declared() -> None:
    core = {canonicalize_name(requirement.name) for requirement in required_by("sanbai", frozenset())}
    extras = frozenset({"postgresql", "zstandard", "harness", "cluster"})
    optional = {canonicalize_name(requirement.name) for requirement in required_by("sanbai", extras)} - core
    assert imported_distributions() - core - optional == set(), "imported, not declared"
    assert core - imported_distributions() == set(), "declared, never imported"
