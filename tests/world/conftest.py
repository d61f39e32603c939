from __future__ import annotations

import pytest

from sanbai.world.prompts import Prompt, Split, prompts
from sanbai.world.village import Village, make_village


@pytest.fixture(scope="session")
def village() -> Village:
    return make_village(1)


@pytest.fixture(scope="session")
def prompts_by_split(village: Village) -> dict[Split, list[Prompt]]:
    return {split: list(prompts(village, 1, split=split, num=1200)) for split in ("train", "valid", "heldout")}
