"""Names and phrases of the village: what entity masking hides whole (ERNIE, Sun et al. 2019, arXiv:1904.09223)."""

from __future__ import annotations

from sanbai.world.lexicon import EVENTS, STREETS, TRADE_WORK, TRADE_WORK_CHINESE, TRADES
from sanbai.world.village import Village


def entities(village: Village) -> tuple[str, ...]:
    """Return names: people with and without their family's, strangers, animals, streets, events, the village."""
    folk = village.folk.values()
    chinese = [person.chinese for person in folk] + [*STREETS.values(), *EVENTS.values(), *TRADES.values()]
    animals = [person.animal.name for person in folk if person.animal]
    whole = [f"{person.name} {person.family}" for person in folk]
    names = (*whole, *village.folk, *village.strangers, *village.heldout_strangers, *animals)
    return tuple(dict.fromkeys((*names, *STREETS, *EVENTS, village.name, *chinese)))


def phrases() -> tuple[str, ...]:
    """Return groups of words that say one thing: what each trade does."""
    return (*TRADE_WORK.values(), *TRADE_WORK_CHINESE.values())


def names_and_phrases(village: Village) -> tuple[str, ...]:
    """Return both."""
    return entities(village) + phrases()
