"""Run the parity tests and write what they measured as a table: `python -m tests.model.parity_table docs/parity.md`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.model.families import FAMILIES

TESTS = Path(__file__).with_name("test_parity.py")
COLUMNS = ("logits", "loss", "gradients", "cache", "import", "export")
INTRODUCTION = """\
# Parity with transformers

Written by `make parity` from a run of `tests/model/test_parity.py`, not by hand. Each family is a tiny model with
random weights, made by the reference class and read from the folder it wrote; rows of 9, 5 and 1 tokens, padded left
and right, the same positions given to both, real positions compared. A number is the largest relative error met, in
float32 and then in float64; ✓ says that every number written was read back, bit for bit; – that there is nothing to
compare.

- *Cache*: what the engine thinks of each next token, read and written in steps, against the reference's full pass.
  *Import*: the reference's folder, whole and sharded. *Export*: transformers loads our folder without a missing or
  surplus tensor.
- In float64 the references' root-mean-square norms, which compute in float32 whatever they are given, are replaced by
  torch's, and Switch's router is told to. What stays near 1e-7 there is what a reference still computes in float32:
  GPT-Neo's scores, rotary tables, Mixtral's router, the loss of causal models.
"""


class Measured:
    """A pytest plugin: errors and outcomes by family and column."""

    def __init__(self) -> None:
        self.cells: dict[tuple[str, str], list[pytest.TestReport]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        name, _, parameters = report.nodeid.rpartition("::")[2].partition("[")
        family = max((family.name for family in FAMILIES if family.name in parameters), key=len)
        self.cells.setdefault((family, name.removeprefix("test_")), []).append(report)

    def cell(self, family: str, column: str) -> str:
        """Return what the table says of one family in one column."""
        reports = self.cells.get((family, column), [])
        if not reports:
            return "–"
        if not all(report.passed for report in reports):
            return "**failed**"
        errors: dict[str, float] = {}
        for precision, error in (item for report in reports for item in report.user_properties):
            errors[precision] = max(errors.get(precision, 0.0), error)
        shown = (errors[name] for name in ("float32", "float64") if name in errors)
        return ", ".join(f"{error:.0e}" if error else "0" for error in shown) or "✓"

    def page(self) -> str:
        """Return the page."""
        rows = ["| family | class | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
        for family in FAMILIES:
            cells = [self.cell(family.name, column) for column in COLUMNS]
            rows.append(f"| {family.name} | `{family.architecture}` | " + " | ".join(cells) + " |")
        return INTRODUCTION + "\n" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    measured = Measured()
    code = pytest.main(["-q", "-p", "no:cacheprovider", "-k", "not page", str(TESTS)], plugins=[measured])
    page = measured.page()
    sys.stdout.write(page)
    if code == pytest.ExitCode.OK:
        Path(sys.argv[1]).write_text(page, encoding="utf-8")
    sys.exit(code)
