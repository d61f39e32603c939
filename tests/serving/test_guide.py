"""The examples of the guide on clients run as they stand there, against a server with a tiny model."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tests.serving.conftest import Site

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "clients.md"
ADDRESS = "http://127.0.0.1:8300"


def examples(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.filterwarnings("ignore")  # of the packages that are shown
@pytest.mark.parametrize("number", range(2))
def test_the_python_of_the_guide_runs(
    site: Site, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = examples("python")[number]
    if "langchain" in code:
        pytest.importorskip("langchain_openai")
    monkeypatch.setenv("OPENAI_API_KEY", site.key())
    assert ADDRESS in code
    guide = ModuleType("guide")
    monkeypatch.setitem(sys.modules, "guide", guide)  # where its classes are looked up
    exec(compile(code.replace(ADDRESS, site.url), str(GUIDE), "exec", dont_inherit=True), guide.__dict__)
    assert len(capsys.readouterr().out.splitlines()) >= 2


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_of_the_guide_runs(site: Site) -> None:
    (command,) = [each for each in examples("sh") if each.startswith("curl")]
    environment = {**os.environ, "OPENAI_API_KEY": site.key()}
    ended = subprocess.run(
        ["bash", "-c", command.replace(ADDRESS, site.url)], env=environment, capture_output=True, text=True, check=True
    )
    assert '"finish_reason"' in ended.stdout
    assert len(examples("python")) == 2  # all of which are run above
