"""First names: of villagers, with their Chinese forms, and of people from elsewhere; each stands for one person.

There are many more names than villagers, since a model learns to copy a name out of its prompt when names are many and
each is rare; of few, it learns the names (Chan et al. 2022, arXiv:2205.05055).
"""

from __future__ import annotations


def pairs(text: str) -> dict[str, str]:
    """Read `name form name form ...`."""
    read = text.split()
    return dict(zip(read[::2], read[1::2], strict=True))


def words(text: str) -> tuple[str, ...]:
    """Read `name name ...`."""
    return tuple(text.split())


WOMEN = pairs(
    "Anna 安娜 Mila 米拉 Clara 克拉拉 Ella 艾拉 Nora 诺拉 Lena 莱娜 Greta 格蕾塔 Ida 伊达 Olga 奥尔加 "
    "Vera 薇拉 Hanna 汉娜 Marta 玛尔塔 Paula 葆拉 Rita 丽塔 Emma 艾玛 Lucy 露西 Alice 爱丽丝 Julia 朱莉娅 "
    "Maria 玛丽亚 Sara 萨拉 Laura 劳拉 Eva 伊娃 Nina 妮娜 Dora 多拉 Flora 芙洛拉 Helga 赫尔佳 Lotte 洛特 "
    "Mona 莫娜 Petra 佩特拉 Rosa 罗莎 Selma 塞尔玛 Wanda 万达 Zelda 泽尔达 Agnes 阿格尼丝 Bella 贝拉 "
    "Celia 西莉亚 Diana 黛安娜 Edith 伊迪丝 Gina 吉娜 Hilda 希尔达 Linda 琳达 Polly 波莉 Ruth 露丝 "
    "Sofia 索菲亚 Zoe 佐伊"
)
MEN = pairs(
    "Tom 汤姆 Ben 本 Max 马克斯 Paul 保罗 Karl 卡尔 Otto 奥托 Hugo 雨果 Emil 埃米尔 Felix 菲利克斯 "
    "Jonas 约纳斯 Leo 利奥 Oscar 奥斯卡 Peter 彼得 Robert 罗伯特 Simon 西蒙 Theo 西奥 Victor 维克托 "
    "Walter 沃尔特 Adam 亚当 Bruno 布鲁诺 Conrad 康拉德 David 大卫 Edgar 埃德加 Fritz 弗里茨 Hans 汉斯 "
    "Ivan 伊万 Kurt 库尔特 Lukas 卢卡斯 Martin 马丁 Nils 尼尔斯 Oliver 奥利弗 Ralf 拉尔夫 Samuel 塞缪尔 "
    "Tobias 托比亚斯 Vincent 文森特 Anton 安东 Boris 鲍里斯 Daniel 丹尼尔 Erik 埃里克 Frank 弗兰克 "
    "Gustav 古斯塔夫 Henry 亨利 Igor 伊戈尔 Klaus 克劳斯 Noah 诺亚"
)
WOMEN_FROM_ELSEWHERE = words(
    "Ada Adele Amelia Amy Andrea Angela Annika Astrid Audrey Barbara Beate Berta Bianca Birgit Brenda Camilla Carla "
    "Carmen Caroline Catherine Cecily Charlotte Chloe Claudia Cora Dagmar Daphne Deborah Delia Denise Doris Dorothy "
    "Edna Elaine Eleanor Elena Elise Eliza Elsa Emily Erika Esther Eunice Evelyn Fanny Fiona Frances Frieda Gabriela "
    "Georgia Gerda Gisela Gloria Gwen Harriet Heidi Helen Henrietta Ilse Imogen Ines Inga Irene Irma Isabel Jana "
    "Janet Jasmin Jenny Jessica Johanna Josephine Judith Karin Katja Katrin Leonie Lisa Louise Lydia Mabel Magda "
    "Margaret Marion Mathilda Maud Melanie Mina Miriam Monika Nadia Naomi Nelly Nicole Norma Odette Pamela Patricia "
    "Phoebe Rachel Ramona Rebecca Regina Renate Roberta Sabine Sally Sandra Sibyl Silvia Stella Susan Tamara Teresa "
    "Thea Tina Ulrike Ursula Valerie Victoria Viola Yvonne"
)
MEN_FROM_ELSEWHERE = words(
    "Aaron Abel Adrian Alan Albert Alexander Alfred Andrew Arnold Arthur Axel Barnaby Basil Benedict Bernard Bertram "
    "Caspar Cecil Charles Christian Colin Cornelius Cyril Damian Dennis Dieter Dirk Dominic Donald Douglas Duncan "
    "Eberhard Edmund Edward Egon Elias Elmar Ernest Eugene Fabian Ferdinand Florian Francis Frederick Gabriel "
    "Geoffrey George Gerald Gilbert Gordon Gregor Harald Harry Hector Heinrich Herbert Herman Holger Horst Howard "
    "Hubert Humphrey Ian Isaac Jacob James Jasper Jerome Joachim Johann John Joseph Julian Keith Kenneth Konstantin "
    "Lars Laurence Leonard Leopold Lionel Lothar Louis Ludwig Magnus Malcolm Manfred Marius Matthew Maurice Michael "
    "Moritz Nathan Neil Nicholas Norbert Olaf Orlando Oswald Patrick Philip Quentin Rainer Ralph Raymond Reinhard "
    "Richard Roderick Roger Roland Rudolf Rupert Sebastian Siegfried Stanley Stefan Sven Terence Thomas Timothy "
    "Ulrich Uwe Valentin Volker Werner Wilfred William Wolfgang Xaver"
)
FEMALE = frozenset((*WOMEN, *WOMEN_FROM_ELSEWHERE))
"""Every first name of a woman."""
FIRST_NAMES = (*WOMEN, *MEN, *WOMEN_FROM_ELSEWHERE, *MEN_FROM_ELSEWHERE)
FAMILIES = pairs(
    "Winter 温特 Sommer 索默 Berger 贝格尔 Lindner 林德纳 Falk 法尔克 Hofer 霍费尔 Brandt 勃兰特 Keller 凯勒 "
    "Vogel 福格尔 Steiner 施泰纳"
)
CHINESE_NAMES = {**WOMEN, **MEN}
PETS = pairs(
    "Biscuit 饼干 Pepper 胡椒 Snow 小雪 Bobby 波比 Star 星星 Luna 露娜 Rocky 洛奇 Ginger 姜姜 Pip 皮皮 "
    "Molly 莫莉 Shadow 影子 Ribbon 丝带 Coco 可可 Spot 斑点"
)
