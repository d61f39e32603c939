"""How much memory there is: what the system says, or the container's limit."""

from pathlib import Path

import pytest

from sanbai.foundation.machine import memory_bytes


def test_without_a_limit_it_is_what_the_kernel_reports(tmp_path: Path) -> None:
    reported = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert memory_bytes(tmp_path / "absent") == pytest.approx(reported, rel=0.001)


@pytest.mark.parametrize(("text", "limited"), [("max\n", False), ("1048576\n", True), (str(10**18), False)])
def test_a_limit_below_the_machines_memory_is_the_answer(tmp_path: Path, text: str, limited: bool) -> None:
    (tmp_path / "memory.max").write_text(text)
    everything = memory_bytes(tmp_path / "absent")
    assert memory_bytes(tmp_path / "memory.max") == (1_048_576 if limited else everything)
