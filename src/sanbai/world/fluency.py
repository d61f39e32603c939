"""Whether a text reads like the village's English: known words, verbs, sentences that are not the same one again."""

from __future__ import annotations

import re
from functools import cache

from sanbai.world.lexicon import EVENTS, NUMBER_WORDS, RELATIONS, category, words_of
from sanbai.world.tasks.harm import HARMLESS
from sanbai.world.tasks.stories import ENDINGS, MIDDLES, OPENINGS, TOPICS, TURNS

VERBS = frozenset(
    words_of(
        "is was were are am be been has have had do does did can could will would should went go goes walked walk met "
        "meet bought buy found find lost lose ate eat saw see took take gave give came come ran run lay sat sit stood "
        "stand sleep slept sleeping needed need shared share smelled smell laughed laugh told tell tells wait waited "
        "seen know knew put made make wanted want thank write wrote help look looked hope bring ask call use hit pull "
        "throw cut wear wash keep practise watch kick get got said say says hear like likes liked love loves lived "
        "live lives play played sang set danced hid heard thought felt feel opened closed carried sold pay paid broke "
        "built grew fell try tried show showed stayed stay choose teach learned read choose smiled cried asked called"
    )
)
COMMON = frozenset(
    words_of(
        "a an the i you she he it we they me him them us my your her his its our their this that these those and or "
        "but so then there here in on at to of for from with by under near beside behind over into out up down about "
        "after before until while when where who what why how all every some any many much more most few one two "
        "other another first last new old good nice well very too also again always never not no yes only just still "
        "even soon now today tomorrow yesterday day morning evening night afternoon week year time way home house "
        "door window tree trees table road village friend friends mother father son daughter brother sister wife "
        "husband child children man woman boy girl everybody nobody somebody something nothing anything everything "
        "dear yours please sorry glad how's own because if as than back away together end secret water fire sky sun "
        "moon rain snow wind light dark small big little long short great hard soft warm cold hot young beautiful "
        "happy sad angry afraid tired proud hand hands head eyes heart money people word words story"
    )
)


@cache
def known_words() -> frozenset[str]:
    """Return the words that a story may use without being marked down: the lexicon, common words, templates."""
    lexicon = {
        word
        for name in words_of("person pet trade hobby food animal place street day thing feeling weather colour")
        for form in category(name)
        for word in form.split()
    }
    helping = [answer for answer, _ in HARMLESS.values()]
    templates = [
        *helping,
        *OPENINGS,
        *TURNS,
        *ENDINGS,
        *(line for lines in (*MIDDLES.values(), *TOPICS.values()) for line in lines),
    ]
    told = {word for line in templates for word in re.findall(r"[a-z']+", re.sub(r"\{\w+\}", " ", line.lower()))}
    events = {word for event in EVENTS for word in event.split()}
    return frozenset(lexicon | told | events | VERBS | COMMON | {*NUMBER_WORDS, *RELATIONS})


def fluency(text: str, *, num_sentences: int) -> float:
    """Return how well the text reads, in [0, 1].

    The product of three shares: words in whole sentences (three to twenty-five words, a verb, not repeated) or in short
    exclamations; whole sentences of the `num_sentences` wanted; and known words (four fifths or fewer count nothing).
    """
    sentences = [re.findall(r"[a-z]+|\d+", part) for part in re.split(r"[.!?\n]+", text.lower().replace("'s", ""))]
    sentences = [words for words in sentences if words]
    words = [word for sentence in sentences for word in sentence]
    if not words:
        return 0.0
    whole = {tuple(sentence) for sentence in sentences if 3 <= len(sentence) <= 25 and not VERBS.isdisjoint(sentence)}
    exclaimed = sum(len(sentence) for sentence in sentences if len(sentence) <= 2)
    known = sum(word in known_words() or word.isdigit() for word in words) / len(words)
    proper = min(1.0, (sum(map(len, whole)) + exclaimed) / len(words))
    share = min(1.0, len(whole) / num_sentences)
    return float(proper * share * max(0.0, 5 * known - 4))
