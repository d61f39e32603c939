"""Set the lines of links to code: [`name`](file.py#L1) leads to where the name is defined; `make reference` runs it."""  # noqa: INP001 - a script

import ast
import re
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parents[1]
LINK = re.compile(r"\[`([\w.]+)`\]\(([^)#\s]+\.py)#L\d+\)")


def defined(path: Path) -> dict[str, int]:
    """Return the line of each function, class, method and field that a file defines, by name; `Class.name` inside."""

    def names(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, int]]:
        for node in body:
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    yield prefix + name, node.lineno
                case ast.ClassDef(name=name, body=inner):
                    yield name, node.lineno
                    yield from names(inner, f"{name}.")
                case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                    yield prefix + name, node.lineno

    return dict(names(ast.parse(path.read_text(encoding="utf-8")).body))


def with_lines(page: Path) -> str:
    """Return a page with every link of that form set to the line where its name is defined.

    Raises:
        KeyError: a file does not define the name.
    """

    def link(found: re.Match[str]) -> str:
        name, target = found.groups()
        return f"[`{name}`]({target}#L{defined(page.parent / target)[name]})"

    return LINK.sub(link, page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    for page in sorted(DOCS.rglob("*.md")):
        if LINK.search(page.read_text(encoding="utf-8")):
            page.write_text(with_lines(page), encoding="utf-8")
