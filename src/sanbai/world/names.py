"""First names with their Chinese forms; villagers and strangers are drawn from here, each name once."""

from __future__ import annotations


def pairs(text: str) -> dict[str, str]:
    """Read `name form name form ...`."""
    words = text.split()
    return dict(zip(words[::2], words[1::2], strict=True))


WOMEN = pairs(
    "Anna 安娜 Mila 米拉 Clara 克拉拉 Ella 艾拉 Nora 诺拉 Lena 莱娜 Greta 格蕾塔 Ida 伊达 Olga 奥尔加 Vera 薇拉 "
    "Tilda 蒂尔达 Hanna 汉娜 Marta 玛尔塔 Paula 葆拉 Rita 丽塔 Sonja 索尼娅 Emma 艾玛 Lucy 露西 Alice 爱丽丝 "
    "Julia 朱莉娅 Maria 玛丽亚 Sara 萨拉 Laura 劳拉 Eva 伊娃 Nina 妮娜 Irma 伊尔玛 Berta 贝尔塔 Dora 多拉 "
    "Flora 芙洛拉 Gerda 格尔达 Helga 赫尔佳 Inge 英格 Kara 卡拉 Lotte 洛特 Mona 莫娜 Petra 佩特拉 Rosa 罗莎 "
    "Selma 塞尔玛 Thea 西娅 Ursula 乌苏拉 Wanda 万达 Yara 雅拉 Zelda 泽尔达 Agnes 阿格尼丝 Bella 贝拉 "
    "Celia 西莉亚 Diana 黛安娜 Edith 伊迪丝 Fanny 芬妮 Gina 吉娜 Hilda 希尔达 Janet 珍妮特 Karin 卡琳 "
    "Linda 琳达 Magda 玛格达 Nelly 内莉 Olivia 奥利维娅 Polly 波莉 Ruth 露丝 Sofia 索菲亚 Tina 蒂娜 Una 乌娜 "
    "Vivian 薇薇安 Xenia 赛妮娅 Zoe 佐伊 Amelia 阿米莉亚 Carla 卡尔拉 Doris 多丽丝 Elsa 艾尔莎 Freda 弗蕾达 "
    "Gloria 格洛丽亚 Heidi 海蒂 Isabel 伊莎贝尔 Jana 雅娜"
)
MEN = pairs(
    "Tom 汤姆 Ben 本 Max 马克斯 Paul 保罗 Karl 卡尔 Otto 奥托 Hugo 雨果 Emil 埃米尔 Felix 菲利克斯 Jonas 约纳斯 "
    "Leo 利奥 Oscar 奥斯卡 Peter 彼得 Robert 罗伯特 Simon 西蒙 Theo 西奥 Victor 维克托 Walter 沃尔特 Adam 亚当 "
    "Bruno 布鲁诺 Conrad 康拉德 David 大卫 Edgar 埃德加 Fritz 弗里茨 Georg 格奥尔格 Hans 汉斯 Ivan 伊万 "
    "Jakob 雅各布 Kurt 库尔特 Lukas 卢卡斯 Martin 马丁 Nils 尼尔斯 Oliver 奥利弗 Philip 菲利普 Ralf 拉尔夫 "
    "Samuel 塞缪尔 Tobias 托比亚斯 Ulrich 乌尔里希 Vincent 文森特 Wilhelm 威廉 Anton 安东 Boris 鲍里斯 "
    "Carlo 卡洛 Daniel 丹尼尔 Erik 埃里克 Frank 弗兰克 Gustav 古斯塔夫 Henry 亨利 Igor 伊戈尔 Johann 约翰 "
    "Klaus 克劳斯 Lorenz 洛伦茨 Moritz 莫里茨 Noah 诺亚 Olaf 奥拉夫 Patrick 帕特里克 Quentin 昆廷 "
    "Rudolf 鲁道夫 Stefan 斯特凡 Thomas 托马斯 Valentin 瓦伦丁 Werner 维尔纳 Xaver 克萨韦尔 Yuri 尤里 Zeno 泽诺 "
    "Albert 阿尔伯特 Casper 卡斯帕 Dennis 丹尼斯 Edwin 埃德温 Fabian 法比安 Gregor 格雷戈尔 Harald 哈拉尔 "
    "Isaac 艾萨克 Julian 朱利安"
)
FAMILIES = pairs(
    "Winter 温特 Sommer 索默 Berger 贝格尔 Lindner 林德纳 Falk 法尔克 Hofer 霍费尔 Brandt 勃兰特 Keller 凯勒 "
    "Vogel 福格尔 Steiner 施泰纳 Ritter 里特尔 Sander 桑德尔 Wagner 瓦格纳 Huber 胡贝尔 Lorch 洛尔希 Mertens 梅滕斯"
)
CHINESE_NAMES = {**WOMEN, **MEN}
PETS = pairs(
    "Biscuit 饼干 Pepper 胡椒 Snow 小雪 Bobby 波比 Star 星星 Luna 露娜 Rocky 洛奇 Ginger 姜姜 Pip 皮皮 Molly 莫莉 "
    "Shadow 影子 Ribbon 丝带 Coco 可可 Spot 斑点 Ruby 红宝 Buddy 巴迪 Misty 小雾 Toby 托比 Fluffy 绒绒 Rusty 小锈 "
    "Bingo 宾果 Cloudy 小云 Lucky 福福 Socks 袜子 Patch 补丁 Muffin 松饼"
)
