"""The closed vocabulary of the village: every category of word that a question can ask for, with its Chinese form.

A category's words are distinct and belong to no other category, so that a program can tell what an answer names.
"""

from __future__ import annotations

from functools import cache

from sanbai.world.names import FIRST_NAMES, PETS

TRADES = {
    "baker": "面包师", "smith": "铁匠", "miller": "磨坊主", "teacher": "老师", "weaver": "织工", "farmer": "农夫",
    "shepherd": "牧羊人", "doctor": "医生", "carpenter": "木匠", "gardener": "园丁", "tailor": "裁缝",
    "postman": "邮差", "cobbler": "鞋匠", "fisherman": "渔夫", "pupil": "学生",
}  # fmt: skip
TRADE_WORK = {
    "baker": "bakes bread", "smith": "makes iron tools", "miller": "grinds corn", "teacher": "teaches the children",
    "weaver": "weaves cloth", "farmer": "works in the fields", "shepherd": "looks after the sheep",
    "doctor": "helps sick people", "carpenter": "makes tables and chairs", "gardener": "looks after the flowers",
    "tailor": "makes coats", "postman": "brings the letters", "cobbler": "mends shoes", "fisherman": "catches fish",
    "pupil": "goes to school",
}  # fmt: skip
TRADE_WORK_CHINESE = {
    "baker": "烤面包", "smith": "打铁", "miller": "磨面粉", "teacher": "教孩子们", "weaver": "织布",
    "farmer": "在田里干活", "shepherd": "照看羊群", "doctor": "帮助病人", "carpenter": "做桌子和椅子",
    "gardener": "照看花草", "tailor": "做大衣", "postman": "送信", "cobbler": "修鞋", "fisherman": "捕鱼",
    "pupil": "上学",
}  # fmt: skip
HOBBIES = {
    "painting": "画画", "singing": "唱歌", "dancing": "跳舞", "fishing": "钓鱼", "swimming": "游泳",
    "reading": "读书", "chess": "下棋", "running": "跑步", "cooking": "做饭", "sewing": "缝纫", "riding": "骑马",
    "drawing": "素描", "skating": "滑冰", "baking": "烘焙",
}  # fmt: skip
FOODS = {
    "apples": "苹果", "pears": "梨", "bread": "面包", "cheese": "奶酪", "soup": "汤", "honey": "蜂蜜", "cake": "蛋糕",
    "plums": "李子", "nuts": "坚果", "pie": "馅饼", "beans": "豆子", "eggs": "鸡蛋", "jam": "果酱",
    "carrots": "胡萝卜",
}  # fmt: skip
ANIMALS = {
    "dog": "狗", "cat": "猫", "goat": "山羊", "horse": "马", "hen": "母鸡", "duck": "鸭子", "rabbit": "兔子",
    "cow": "奶牛", "lamb": "羊羔", "pig": "猪", "owl": "猫头鹰", "fox": "狐狸", "swan": "天鹅",
}  # fmt: skip
PET_KINDS = ("dog", "cat", "goat", "horse", "hen", "duck", "rabbit", "lamb")
BIRDS = ("hen", "duck", "owl", "swan")
PLACES = {
    "well": "水井", "bridge": "桥", "mill": "磨坊", "market": "集市", "school": "学校", "church": "教堂",
    "inn": "旅店", "river": "河边", "forest": "森林", "hill": "山丘", "lake": "湖边", "garden": "花园",
    "barn": "谷仓", "tower": "塔楼",
}  # fmt: skip
OUTDOORS = ("bridge", "river", "forest", "hill", "lake", "garden")
STREETS = {
    "Oak Lane": "橡树巷", "Elm Lane": "榆树巷", "Ash Street": "白蜡街", "Fern Road": "蕨草路", "Pine Road": "松树路",
    "Birch Street": "桦树街", "Willow Lane": "柳树巷", "Maple Road": "枫树路",
}  # fmt: skip
DAYS = {
    "Monday": "星期一", "Tuesday": "星期二", "Wednesday": "星期三", "Thursday": "星期四", "Friday": "星期五",
    "Saturday": "星期六", "Sunday": "星期日",
}  # fmt: skip
THINGS = {
    "lamp": "灯", "rope": "绳子", "basket": "篮子", "key": "钥匙", "letter": "信", "drum": "鼓", "kite": "风筝",
    "candle": "蜡烛", "boat": "小船", "coat": "大衣", "hat": "帽子", "spoon": "勺子", "ladder": "梯子", "clock": "钟",
    "ring": "戒指", "bell": "铃铛", "blanket": "毯子", "bucket": "水桶", "book": "书", "chair": "椅子", "cup": "杯子",
    "map": "地图", "flute": "笛子", "box": "盒子", "glove": "手套", "scarf": "围巾", "hammer": "锤子", "nail": "钉子",
    "brush": "刷子", "pot": "锅",
}  # fmt: skip
TOOLS = ("hammer", "nail", "brush", "ladder", "rope")
CLOTHES = ("coat", "hat", "glove", "scarf")
FEELINGS = {
    "happy": "高兴", "sad": "难过", "angry": "生气", "afraid": "害怕", "tired": "累", "proud": "自豪",
}  # fmt: skip
WEATHER = {
    "sunny": "晴朗", "rainy": "下雨", "windy": "刮风", "cold": "寒冷", "foggy": "有雾", "warm": "暖和",
}  # fmt: skip
COLOURS = {
    "red": "红色", "blue": "蓝色", "green": "绿色", "yellow": "黄色", "white": "白色", "black": "黑色", "brown": "棕色",
    "grey": "灰色",
}  # fmt: skip
RELATIONS = (
    "mother",
    "father",
    "wife",
    "husband",
    "son",
    "daughter",
    "brother",
    "sister",
    "grandmother",
    "grandfather",
)
EVENTS = {
    "boat race": "划船比赛", "harvest feast": "丰收节", "lantern walk": "灯笼夜游", "kite day": "风筝节",
    "song evening": "歌会", "horse fair": "马市",
}  # fmt: skip
INSULTS = ("zorkel", "mugwit", "dranflop", "snibber", "plonkard", "gruffnut", "wobblehead", "scrumpit")
"""Invented words that stand for insults, so that no real one is needed."""


def words_of(text: str) -> tuple[str, ...]:
    """Return the words of a text."""
    return tuple(text.split())


NUMBER_WORDS = {
    word: number
    for number, word in enumerate(
        words_of(
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
            "seventeen eighteen nineteen twenty"
        )
    )
}


def article(noun: str) -> str:
    """Return the noun behind `a` or `an`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    """Return the plural of a regular noun."""
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "sh", "ch")) else "s")


def counted(number: int, noun: str) -> str:
    """Return `1 lamp` or `3 lamps`."""
    return f"{number} {noun if number == 1 else plural(noun)}"


def join(words: list[str] | tuple[str, ...]) -> str:
    """Return `a`, `a and b`, or `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


@cache
def category(name: str) -> dict[str, str]:
    """Return every way to write a value of the category, in lower case, with the value it stands for."""
    if name == "person":
        return {person.lower(): person for person in FIRST_NAMES}
    if name == "pet":
        return {pet.lower(): pet for pet in PETS}
    if name == "relation":
        return {relation: relation for relation in RELATIONS}
    words = {
        "trade": TRADES, "hobby": HOBBIES, "food": FOODS, "animal": ANIMALS, "place": PLACES, "street": STREETS,
        "day": DAYS, "thing": THINGS, "feeling": FEELINGS, "weather": WEATHER, "colour": COLOURS, "event": EVENTS,
    }[name]  # fmt: skip
    forms = {word.lower(): word for word in words}
    if name in {"animal", "thing", "place", "trade"}:
        forms |= {plural(word): word for word in words}
    if name == "food":
        forms |= {word[:-1]: word for word in words if word.endswith("s")}
    if name == "weather":
        forms |= {"rain": "rainy", "raining": "rainy", "rained": "rainy", "wind": "windy", "fog": "foggy"}
    return forms
