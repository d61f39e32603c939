"""Chinese documents about the same village: entries, diaries, dialogues and sums."""

from __future__ import annotations

from sanbai.world.facts import FACTS, fact_value
from sanbai.world.lexicon import (
    ANIMALS,
    DAYS,
    EVENTS,
    FEELINGS,
    FOODS,
    HOBBIES,
    PLACES,
    STREETS,
    THINGS,
    TRADE_WORK_CHINESE,
    TRADES,
    WEATHER,
)
from sanbai.world.names import CHINESE_NAMES, FAMILIES, PETS
from sanbai.world.outings import draw_outing
from sanbai.world.prose import Writer
from sanbai.world.tasks.arithmetic import draw_terms, total
from sanbai.world.tasks.task import Scene, pronoun
from sanbai.world.village import Person

VILLAGE = "椴树村"
_TRANSLATIONS: dict[str, dict[str, str]] = {
    "trade": TRADES, "street": STREETS, "hobby": HOBBIES, "food": FOODS, "animal": ANIMALS, "mother": CHINESE_NAMES,
    "father": CHINESE_NAMES, "wife": CHINESE_NAMES, "husband": CHINESE_NAMES,
}  # fmt: skip
_STATEMENTS = {
    "trade": "{who}是{value}。", "street": "{who}住在{value}。", "hobby": "{who}喜欢{value}。",
    "food": "{who}最爱吃{value}。", "animal": "{who}养了一只{value}。", "mother": "{who}的妈妈是{value}。",
    "father": "{who}的爸爸是{value}。", "wife": "{who}的妻子是{value}。", "husband": "{who}的丈夫是{value}。",
}  # fmt: skip
_QUESTIONS = {
    "trade": "{who}做什么工作?", "street": "{who}住在哪里?", "hobby": "{who}喜欢做什么?", "food": "{who}最爱吃什么?",
    "animal": "{who}养了什么动物?", "mother": "{who}的妈妈是谁?", "father": "{who}的爸爸是谁?",
    "wife": "{who}的妻子是谁?", "husband": "{who}的丈夫是谁?",
}  # fmt: skip


def chinese_pronoun(name: str) -> str:
    """Return 她 or 他."""
    return "她" if pronoun(name) == "she" else "他"


def _known(scene: Scene, person: Person) -> list[str]:
    return [attribute for attribute in FACTS if fact_value(scene.village, person, attribute)]


def state_in_chinese(scene: Scene, person: Person, attribute: str, who: str) -> str:
    """Return one statement of the fact, with `who` (a name or a pronoun) as its subject."""
    value = fact_value(scene.village, person, attribute)
    return _STATEMENTS[attribute].format(who=who, value=_TRANSLATIONS[attribute][value])


def write_entry(scene: Scene) -> str:
    """An entry about a villager."""
    person = scene.choose(scene.village.people())
    they = chinese_pronoun(person.name)
    told = [state_in_chinese(scene, person, attribute, they) for attribute in _known(scene, person)]
    told.append(f"{they}每天{TRADE_WORK_CHINESE[person.trade]}。")
    told.append(f"{they}今年{person.age}岁。")
    if person.animal:
        told.append(f"{they}的{ANIMALS[person.animal.kind]}叫{PETS[person.animal.name]}。")
    scene.random.shuffle(told)
    family = FAMILIES[person.family]
    opening = scene.choose(
        (f"{person.chinese}·{family}是{VILLAGE}的人。", f"{VILLAGE}有一个人叫{person.chinese}·{family}。")
    )
    return opening + "".join(told[: scene.random.randint(5, 9)])


def write_diary(scene: Scene) -> str:
    """Two days in the first or the third person."""
    parts = []
    for _ in range(2):
        outing = draw_outing(scene, tuple(CHINESE_NAMES))
        who = "我" if scene.chance(0.5) else CHINESE_NAMES[outing.hero]
        sentences = [
            f"{who}在{PLACES[outing.meeting]}遇见了{CHINESE_NAMES[outing.friend]}。",
            f"{who}买了{outing.number}个{THINGS[outing.bought]}。",
            f"{who}捡到一个{THINGS[outing.found]}。",
            f"{who}吃了{FOODS[outing.food]}。",
            f"那天天气{WEATHER[outing.weather]}。",
        ]
        told = "".join(scene.sample(sentences, 3))
        parts.append(f"{DAYS[outing.day]},{who}去了{PLACES[outing.place]}。{told}{who}很{FEELINGS[outing.feeling]}。")
    return "\n".join(parts)


def write_dialogue(scene: Scene) -> str:
    """Two people ask and tell about a third."""
    person = scene.choose(scene.village.people())
    asker, teller = scene.sample(tuple(CHINESE_NAMES), 2)
    lines = []
    for attribute in scene.sample(_known(scene, person), 3):
        lines.append(f"{CHINESE_NAMES[asker]}:{_QUESTIONS[attribute].format(who=person.chinese)}")
        answer = state_in_chinese(
            scene, person, attribute, scene.choose((person.chinese, chinese_pronoun(person.name)))
        )
        lines.append(f"{CHINESE_NAMES[teller]}:{answer}")
    return "\n".join(lines)


def write_sums(scene: Scene) -> str:
    """Sums told in Chinese."""
    lines = []
    for _ in range(scene.random.randint(4, 8)):
        a, b, sign = draw_terms(scene)
        lines.append(f"{a}{'加' if sign == '+' else '减'}{b}等于{total(a, b, sign)}。")
    return "".join(lines)


def write_event(scene: Scene) -> str:
    """When and where an event is, and who came."""
    event = scene.choose(scene.village.events)
    names = "、".join(CHINESE_NAMES[name] for name in scene.sample(list(scene.village.folk), 3))
    return (
        f"{VILLAGE}的{EVENTS[event.name]}在{DAYS[event.day]},地点是{PLACES[event.place]}。"
        f"去年{names}都来了。大家吃了{FOODS[scene.choose(FOODS)]},玩得很高兴。"
    )


CHINESE_WRITERS: dict[str, tuple[Writer, float]] = {
    "entry": (write_entry, 4),
    "diary": (write_diary, 4),
    "dialogue": (write_dialogue, 3),
    "arithmetic": (write_sums, 1),
    "event": (write_event, 1),
}
"""Every form of Chinese text with its share of the documents."""
