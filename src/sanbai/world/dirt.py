"""Dirt to plant in documents, with its truth: what a cleaning stage ought to find."""

from __future__ import annotations

import random
import string

from sanbai.world.lexicon import FOODS, INSULTS, THINGS
from sanbai.world.names import FAMILIES, FIRST_NAMES

BOILERPLATE = (
    "Home | News | Market | Contact",
    "Click here to read more.",
    "All rights reserved. Linden Village Press.",
    "Please accept our cookies to read on.",
    "Share this page with your friends!",
    "Log in or sign up to leave a comment.",
    "You are reading page 1 of 1.",
    "Subscribe to our newsletter today.",
)
DOMAINS = ("linden.example", "village-post.example", "mail.example")


def with_boilerplate(generator: random.Random, text: str) -> tuple[str, tuple[str, ...]]:
    """Wrap the text in two or three lines that many documents share; return it and the lines."""
    lines = tuple(generator.sample(BOILERPLATE, generator.randint(2, 3)))
    return "\n".join([lines[0], text, *lines[1:]]), lines


def gibberish(generator: random.Random) -> str:
    """Return noise: random letters, symbols, or one word again and again."""
    which = generator.randrange(3)
    if which == 0:
        return " ".join(
            "".join(generator.choices(string.ascii_lowercase, k=generator.randint(3, 14)))
            for _ in range(generator.randint(20, 60))
        )
    if which == 1:
        return "".join(generator.choices("#@$%&*+=<>~^|/\\_{}[]();:0123456789 ", k=generator.randint(120, 400)))
    return " ".join([generator.choice(list(THINGS))] * generator.randint(40, 120))


def with_contact(generator: random.Random, text: str) -> tuple[str, tuple[str, ...]]:
    """Add a sentence with an invented e-mail address or telephone number; return the text and the address or number."""
    name = generator.choice(FIRST_NAMES).lower()
    if generator.random() < 0.5:
        family = generator.choice(list(FAMILIES)).lower()
        contact = f"{name}{generator.choice(('.', '_', ''))}{family}@{generator.choice(DOMAINS)}"
        added = generator.choice(("Write to {c} for more.", "My address is {c} now.", "Send it to {c}, please."))
    else:
        digits = "".join(generator.choices(string.digits, k=6))
        form = generator.choice(
            ("+49 555 {a} {b}", "(0555) {a}-{b}", "0555 {a} {b}", "+44 20 7946 0{a}", "555-{a}-{b}4")
        )
        contact = form.format(a=digits[:3], b=digits[3:])
        added = generator.choice(("Call {c} in the evening.", "My number is {c} now.", "Ring me at {c}, please."))
    return f"{text} {added.format(c=contact)}", (contact,)


def with_insult(generator: random.Random, text: str) -> tuple[str, tuple[str, ...]]:
    """Add a sentence with a word from the invented insults; return the text and the word."""
    insult = generator.choice(INSULTS)
    added = generator.choice(
        ("You are a {i}!", "What a {i} you are.", "Go away, you {i}!", "Only a {i} would do that.")
    )
    return f"{text} {added.format(i=insult)}", (insult,)


def nearly_same(generator: random.Random, text: str) -> str:
    """Return the text with one word exchanged, or with a short sentence more."""
    words = text.split(" ")
    places = [place for place, word in enumerate(words) if word.strip(".,") in THINGS or word.strip(".,") in FOODS]
    if places and generator.random() < 0.5:
        place = generator.choice(places)
        old = words[place].strip(".,")
        pool = list(THINGS if old in THINGS else FOODS)
        words[place] = words[place].replace(old, generator.choice([word for word in pool if word != old]))
        return " ".join(words)
    return f"{text} {generator.choice(('That was all.', 'This is true.', 'So it was.'))}"
