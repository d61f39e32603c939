"""Markdown to HTML that may stand in a page: HTML in the text is text, and what is left is on an explicit list.

markdown-it-py (raw HTML off) makes the HTML, Pygments colours code by CSS classes, nh3 lets through only what is named
here. Images are not: a picture's address would tell another server that the answer was read.
"""

from __future__ import annotations

import functools
from typing import Any

import nh3
from markdown_it import MarkdownIt
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

TAGS = {
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "s",
    "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
ATTRIBUTES = {
    "a": {"href", "title"},
    "code": {"class"},
    "ol": {"start"},
    "pre": {"class"},
    "span": {"class"},
    "td": {"class"},
    "th": {"class"},
}
SCHEMES = {"http", "https", "mailto"}
#: Code longer than this is shown without colours, so that no answer costs a second.
LONGEST_COLOURED = 20_000


def render_markdown(text: str) -> str:
    """Return HTML for a message. Equal texts are rendered once."""
    return _render(text)


@functools.lru_cache(maxsize=2048)
def _render(text: str) -> str:
    return nh3.clean(
        _parser().render(text),
        tags=TAGS,
        attributes=ATTRIBUTES,
        url_schemes=SCHEMES,
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


@functools.cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "linkify": False, "breaks": True, "maxNesting": 20})
    parser.enable(["table", "strikethrough"])
    parser.disable("image")
    parser.add_render_rule("fence", _render_code)
    parser.add_render_rule("code_block", _render_code)
    return parser


def _render_code(_: Any, tokens: list[Any], index: int, *__: Any) -> str:
    """Render a block of code; the language's name is kept as a class if it is a plain word."""
    token = tokens[index]
    language = token.info.strip().split(maxsplit=1)[0].lower() if token.info.strip() else ""
    coloured = _colour(token.content, language)
    name = f' class="language-{language}"' if language.replace("+", "").replace("-", "").isalnum() else ""
    return f"<pre><code{name}>{coloured}</code></pre>\n"


def _colour(code: str, language: str) -> str:
    try:
        lexer = get_lexer_by_name(language if len(code) <= LONGEST_COLOURED else "text", stripnl=False)
    except ClassNotFound:
        lexer = get_lexer_by_name("text", stripnl=False)
    return str(highlight(code, lexer, HtmlFormatter(nowrap=True)))
