"""Family puzzles about strangers: the riddle of the only son, its look-alikes, and chains of relations."""

from __future__ import annotations

from sanbai.world.lexicon import HOBBIES
from sanbai.world.names import FEMALE
from sanbai.world.tasks.task import Draft, Phrasings, Scene, Task, Truth, possessive, pronoun, sentence

ASK = Phrasings(
    (
        "Does {child} like {hobby}?",
        "Does {child} like {hobby}? Answer with a reason or say that we cannot know.",
        "Tell me if {child} likes {hobby}.",
        "Do we know that {child} likes {hobby}?",
        "And {child}, does {child} like {hobby}?",
    ),
    ("Can we say that {child} likes {hobby}?", "So, does {child} like {hobby}?"),
)
CHAINS = Phrasings(
    (
        "Who is {child}'s {relation}?",
        "What is the name of {child}'s {relation}?",
        "Name the {relation} of {child}.",
        "{child}'s {relation} is who?",
        "Tell me who {child}'s {relation} is.",
    ),
    ("Who is the {relation} of {child}?", "Tell me the name of {child}'s {relation}."),
)


def write_riddle(scene: Scene) -> Draft:
    """A parent likes something, and so does her or his child; someone is the only one, or is not, or the other kind."""
    women = [name for name in scene.strangers if name in FEMALE]
    men = [name for name in scene.strangers if name not in FEMALE]
    parent = scene.choose(scene.strangers)
    wants_son = scene.chance(0.5)
    child = scene.other(men if wants_son else women, parent)
    own, opposite = ("son", "daughter") if wants_son else ("daughter", "son")
    hobby = scene.choose(HOBBIES)
    her = possessive(parent)
    twist = scene.choose(("yes", "yes", "no", "no", "one of two", "another kind", "not a child"))
    told = {
        "yes": f"So does {her} {own}. {child} is {parent}'s only {own}.",
        "no": f"But {her} {own} does not. {child} is {parent}'s only {own}.",
        "one of two": f"So does one of {her} two {own}s. {child} is one of {parent}'s {own}s.",
        "another kind": f"So does {her} {opposite}. {child} is {parent}'s only {own}.",
        "not a child": f"So does {her} {own}. {child} is {parent}'s {'brother' if wants_son else 'sister'}.",
    }[twist]
    they = pronoun(child)
    reasons = {
        "yes": f"Yes, {child} likes {hobby}, because {they} is the only {own}.",
        "no": f"No, {child} does not like {hobby}, because {they} is the only {own}.",
    }
    short = {"yes": f"Yes, {child} likes {hobby}.", "no": f"No, {child} does not like {hobby}."}
    not_known = "We cannot know, because the text does not say it."
    verdict = twist if twist in reasons else "unknown"
    good = (reasons[verdict], short[verdict]) if verdict in reasons else (not_known, "The text does not say.")
    wrong = [short[other] for other in short if other != verdict]
    truth = Truth(
        rule="yes_no",
        answers=(verdict,),
        options=(hobby,),
        good=good,
        faulty={"wrong": (*wrong, not_known) if verdict != "unknown" else tuple(wrong)},
    )
    opening = f"{parent} likes {hobby}. {told} "
    return Draft(opening + scene.phrase(ASK).format(child=child, hobby=hobby), truth)


def write_chain(scene: Scene) -> Draft:
    """Two steps of kinship, in either order: who is the grandmother, grandfather, uncle's side left out."""
    elder, parent, child = scene.sample(scene.strangers, 3)
    elder_role = "mother" if elder in FEMALE else "father"
    parent_role = "mother" if parent in FEMALE else "father"
    facts = [f"{elder} is {parent}'s {elder_role}.", f"{parent} is {child}'s {parent_role}."]
    if scene.chance(0.5):
        facts.reverse()
    asks_parent = scene.chance(0.4)
    relation = parent_role if asks_parent else f"grand{elder_role}"
    answer, wrong = (parent, elder) if asks_parent else (elder, parent)
    truth = Truth(
        rule="value",
        category="person",
        answers=(answer,),
        allowed=(child,),
        good=(f"{child}'s {relation} is {answer}.", f"{sentence(possessive(child))} {relation} is {answer}."),
        faulty={"wrong": (f"{child}'s {relation} is {wrong}.",)},
    )
    return Draft(f"{' '.join(facts)} {scene.phrase(CHAINS).format(child=child, relation=relation)}", truth)


TASKS = (
    Task("riddle", "closed question", 12.0, write_riddle, few_shot=True),
    Task("kinship_chain", "closed question", 1.5, write_chain, few_shot=True),
)
