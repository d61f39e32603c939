"""Small talk of one to three turns in which the last turn leans on an earlier one."""

from __future__ import annotations

from sanbai.world.facts import FACTS, fact_value, state_with_pronoun
from sanbai.world.lexicon import ANIMALS, DAYS, FOODS, HOBBIES, PLACES, THINGS
from sanbai.world.tasks.memory import another_value
from sanbai.world.tasks.reading import everyone
from sanbai.world.tasks.task import Draft, Message, Phrasings, Scene, Task, Truth, sentence

GREETINGS = Phrasings(
    (
        "Hello, I am {name}. I like {hobby}.",
        "Hi! My name is {name} and I like {hobby}.",
        "Good morning. I am {name} and I like {hobby}.",
        "I am called {name}. What I like is {hobby}.",
        "Hello, {name} here. I like {hobby} very much.",
    ),
    ("Hello! {name} is my name and I like {hobby}.",),
)
REPLIES = ("Hello {name}! How can I help you?", "Hello {name}, nice to meet you.")
RECALLS: dict[str, Phrasings] = {
    "name": Phrasings(
        ("What is my name?", "Do you know my name?", "Tell me my name.", "How am I called?"),
        ("Can you tell me my name?",),
    ),
    "hobby": Phrasings(
        ("What do I like?", "Do you know what I like to do?", "Tell me what I like.", "What is my hobby?"),
        ("Can you tell me what I like?",),
    ),
}
NEWS: dict[str, tuple[str, Phrasings]] = {
    "sorry|sad|pity": (
        "sad",
        Phrasings(
            (
                "I lost my {thing} at the {place}.",
                "My {thing} is broken.",
                "I am sad because I lost my {thing}.",
                "My {thing} is gone.",
                "It is sad, my {thing} fell into the river.",
            ),
            ("Oh no, my {thing} is lost.", "I cannot find my {thing} and I am sad."),
        ),
    ),
    "glad|happy|nice|wonderful": (
        "glad",
        Phrasings(
            (
                "I found a {thing} at the {place}!",
                "I have a new {thing}!",
                "I am happy because I got a {thing}.",
                "My mother gave me a {thing}.",
                "See my new {thing}!",
            ),
            ("Look, I got a new {thing}!", "A friend gave me a {thing} and I am happy."),
        ),
    ),
}
PLANS = Phrasings(
    (
        "On {day} I want to go to the {place}.",
        "I will go to the {place} on {day}.",
        "I plan to go to the {place} on {day}.",
        "{day} is the day when I go to the {place}.",
    ),
    ("My plan for {day} is to go to the {place}.",),
)
PLAN_RECALLS: dict[str, Phrasings] = {
    "place": Phrasings(
        ("Where do I want to go?", "To which place will I go?", "Where will I go?", "What place is it?"),
        ("Which place will I go to?",),
    ),
    "day": Phrasings(
        ("When will I go there?", "On which day will I go?", "When do I go?", "Which day is it?"),
        ("What day will I go there?",),
    ),
}
FOLLOW_UPS: dict[str, Phrasings] = {
    "trade": Phrasings(
        ("And what does {they} do?", "What is {their} trade?", "And what trade does {they} have?"),
        ("And {their} trade?",),
    ),
    "street": Phrasings(
        ("And where does {they} live?", "Where does {they} live?", "And in which street?"), ("And {their} street?",)
    ),
    "hobby": Phrasings(
        ("And what does {they} like to do?", "What is {their} hobby?", "And what hobby does {they} have?"),
        ("And {their} hobby?",),
    ),
    "food": Phrasings(
        (
            "And what does {they} like to eat?",
            "What is {their} favourite food?",
            "And which food does {they} like best?",
        ),
        ("And {their} favourite food?",),
    ),
}


def turns(*contents: str) -> tuple[Message, ...]:
    """Return alternating messages, the user first."""
    return tuple({"role": ("user", "assistant")[turn % 2], "content": content} for turn, content in enumerate(contents))


def write_recall(scene: Scene) -> Draft:
    """Ask for the name or the hobby that the user gave a turn earlier."""
    name, other = scene.sample(everyone(scene), 2)
    hobby = scene.choose(HOBBIES)
    asked = scene.choose(RECALLS)
    answer, category = (name, "person") if asked == "name" else (hobby, "hobby")
    wrong = f"Your name is {other}." if asked == "name" else f"You like {scene.other(HOBBIES, hobby)}."
    good = (
        (f"Your name is {name}.", f"You are {name}.")
        if asked == "name"
        else (f"You like {hobby}.", f"You like {hobby}, {name}.")
    )
    truth = Truth(rule="value", category=category, answers=(answer,), good=good, faulty={"wrong": (wrong,)})
    before = turns(scene.phrase(GREETINGS).format(name=name, hobby=hobby), scene.choose(REPLIES).format(name=name))
    return Draft(scene.phrase(RECALLS[asked]), truth, before)


def write_plan(scene: Scene) -> Draft:
    """Ask for the day or the place of a plan told a turn earlier."""
    day, place = scene.choose(DAYS), scene.choose(PLACES)
    asked = scene.choose(PLAN_RECALLS)
    values = {"day": day, "place": place}
    good = {
        "day": (f"You will go on {day}.", f"You will go there on {day}."),
        "place": (f"You will go to the {place}.", f"You want to go to the {place}."),
    }[asked]
    wrong = scene.other(DAYS if asked == "day" else PLACES, values[asked])
    truth = Truth(
        rule="value",
        category=asked,
        answers=(values[asked],),
        allowed=(day, place),
        good=good,
        faulty={"wrong": (good[0].replace(values[asked], wrong),)},
    )
    reply = scene.choose(("That is a good plan.", "That sounds nice."))
    return Draft(
        scene.phrase(PLAN_RECALLS[asked]), truth, turns(scene.phrase(PLANS).format(day=day, place=place), reply)
    )


def write_news(scene: Scene) -> Draft:
    """React to a user's small luck or mishap, naming the thing."""
    required = scene.choose(NEWS)
    mood, phrasings = NEWS[required]
    thing, other = scene.sample(THINGS, 2)
    good = {
        "sad": (f"I am sorry about your {thing}. I hope that you are well.", f"I am sorry to hear about your {thing}."),
        "glad": (f"How nice! I am glad about your {thing}.", f"I am glad to hear about your {thing}."),
    }[mood]
    truth = Truth(
        rule="mention",
        required=(required, thing),
        good=good,
        faulty={"wrong": (good[0].replace(thing, other), good[0].split(".")[0].split(" about")[0] + ".")},
    )
    news = scene.phrase(phrasings).format(thing=thing, place=scene.choose(PLACES))
    before = turns(
        scene.choose(("Hello!", "Hi!", "Good morning.")),
        scene.choose(("Hello! How are you?", "Hello! How is your day?")),
    )
    return Draft(news, truth, before if scene.chance(0.7) else ())


def write_follow_up(scene: Scene) -> Draft:
    """Ask about a villager by pronoun, after a turn that named her or him."""
    person = scene.choose(scene.people)
    first, second = scene.sample(FOLLOW_UPS, 2)
    values = {attribute: fact_value(scene.village, person, attribute) for attribute in (first, second)}
    wrong = another_value(scene, person, second, values[second])
    truth = Truth(
        rule="value",
        category=FACTS[second].category,
        answers=(values[second],),
        good=(state_with_pronoun(second, person, values[second]),),
        faulty={"wrong": (state_with_pronoun(second, person, wrong),)},
        about_world=True,
    )
    before = turns(
        scene.phrase(FACTS[first].questions).format(name=person.name), state_with_pronoun(first, person, values[first])
    )
    question = scene.phrase(FOLLOW_UPS[second]).format(they=person.pronoun, their=person.possessive)
    return Draft(sentence(question), truth, before)


def write_choice(scene: Scene) -> Draft:
    """Offer two options and ask for a reason-free choice that names exactly one."""
    values = scene.choose((FOODS, HOBBIES, ANIMALS, PLACES))
    first, second = scene.sample(values, 2)
    ask = scene.phrase(
        Phrasings(
            (
                "{a} or {b}? Choose one for me.",
                "Which is better for me, {a} or {b}?",
                "I can have {a} or {b}. Which one?",
                "Should I take {a} or {b}?",
            ),
            ("Help me to choose: {a} or {b}?",),
        )
    )
    chosen = scene.choose((first, second))
    neither = scene.other(list(values), first, second)
    truth = Truth(
        rule="items",
        options=(first, second),
        num_items=1,
        good=(f"I would choose {chosen}.", f"Take {chosen}."),
        faulty={"wrong": (f"I would choose {neither}.",), "unconstrained": (f"I would choose {first} and {second}.",)},
    )
    before = turns(scene.choose(("Can you help me?", "I do not know what to choose.")), "Of course. What is it about?")
    return Draft(sentence(ask.format(a=first, b=second)), truth, before)


TASKS = (
    Task("recall", "chat", 3.0, write_recall, in_documents=False),
    Task("plan", "chat", 2.0, write_plan, in_documents=False),
    Task("news", "chat", 2.5, write_news),
    Task("follow_up", "chat", 2.5, write_follow_up, in_documents=False),
    Task("choice", "chat", 1.0, write_choice),
)
