from __future__ import annotations

import pytest

from sanbai.text.reserved import MARKERS
from sanbai.text.tokenizer import Tokenizer, train_tokenizer

#: Markers stand in the training text on purpose: learning from them must not make them producible.
TEXTS = [
    "Anna bakes bread in the mill. Her son likes painting, and so does Anna.\n",
    "村里有一座磨坊。安娜每天早上烤面包,她的儿子喜欢画画。\n",
    "12 + 30 = 42; 7 * 8 = 56. It's what they've said.\n\n    indented\ttext 😀 ñandú\n",
    "".join(f"{marker} hello {marker}{marker}" for marker in MARKERS.values()),
]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS * 20, vocab_size=600)
