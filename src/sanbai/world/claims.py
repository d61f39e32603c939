"""Claims about villagers: read simple statements out of any text and hold them against the village."""

from __future__ import annotations

import re

from sanbai.world.facts import FACTS, fact_value
from sanbai.world.lexicon import FOODS, HOBBIES, TRADES
from sanbai.world.village import Village

_VERBS = {
    "is a": "trade", "is an": "trade", "works as a": "trade", "works as an": "trade", "lives in": "street",
    "home is in": "street", "likes to eat": "food", "favourite food is": "food", "likes": "likes", "loves": "likes",
    "has a": "animal", "has an": "animal", "animal is a": "animal", "animal is an": "animal", "mother is": "mother",
    "father is": "father", "wife is": "wife", "husband is": "husband",
}  # fmt: skip
_CLAIM = re.compile(
    r"\b([A-Z][a-z]+)(?:'s)? ("
    + "|".join(sorted(_VERBS, key=len, reverse=True))
    + r") ([A-Z][a-z]+ (?:Lane|Street|Road)|[A-Za-z]+)"
)
_RELATION = re.compile(r"\b([A-Z][a-z]+) is ([A-Z][a-z]+)'s (mother|father|wife|husband)\b")


def false_claims(village: Village, text: str) -> list[tuple[str, str, str]]:
    """Return the (person, attribute, value) claims of the text that the village denies.

    A sentence with `not` or `no` in it claims nothing here; strangers and unknown verbs are passed over.
    """
    found: list[tuple[str, str, str]] = []
    for sentence in re.split(r"[.!?\n]+", text):
        if " not " in sentence or "n't" in sentence:
            continue
        claims = [(name, _VERBS[verb], value) for name, verb, value in _CLAIM.findall(sentence)]
        claims += [(name, relation, relative) for relative, name, relation in _RELATION.findall(sentence)]
        found += [claim for claim in claims if _denied(village, *claim)]
    return found


def _denied(village: Village, name: str, attribute: str, value: str) -> bool:
    person = village.folk.get(name)
    if person is None:
        return False
    if attribute == "likes":
        attribute = "hobby" if value in HOBBIES else "food" if value in FOODS else ""
    if attribute == "trade" and value not in TRADES:
        return False
    return attribute in FACTS and fact_value(village, person, attribute).lower() != value.lower()
