from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanbai.serving.markdown import ATTRIBUTES, TAGS, render_markdown

#: Ways that are known to have run scripts somewhere, in Markdown and around it.
PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--><img src=1 onerror=alert(1)>'>",
    "<a href=javascript:alert(1)>x</a>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\nscript:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](javascript&colon;alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[x](vbscript:msgbox(1))",
    "[x](file:///etc/passwd)",
    "[x](blob:http://a/b)",
    "<javascript:alert(1)>",
    "[x]: javascript:alert(1)\n\n[x]",
    '[x](http://a "onmouseover=alert(1) \\" onload=alert(1)")',
    "[x](http://a'onmouseover='alert(1))",
    "![x](http://evil.example/pixel.png)",
    "![x](javascript:alert(1))",
    "[![x](http://evil.example/p.png)](http://a)",
    "```html\n<script>alert(1)</script>\n```",
    '```x"onmouseover="alert(1)\ncode\n```',
    '```"><script>alert(1)</script>\ncode\n```',
    "`<script>alert(1)</script>`",
    "    <script>alert(1)</script>",
    "|a|\n|-|\n|<script>alert(1)</script>|",
    "# <script>alert(1)</script>",
    "> <script>alert(1)</script>",
    "- <script>alert(1)</script>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "<style>@import 'http://evil.example/x.css';</style>",
    "<link rel=stylesheet href=http://evil.example/x.css>",
    "<base href=http://evil.example/>",
    "<form action=http://evil.example/><button>x</button></form>",
    "<meta http-equiv=refresh content='0;url=http://evil.example/'>",
    "<object data=x></object><embed src=x>",
    "<p style='background:url(http://evil.example/)'>",
    "<div id=chat class=composer>",
    "<!--><script>alert(1)</script>-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    "\x00<script>alert(1)</script>",
    "<scr\x00ipt>alert(1)</scr\x00ipt>",
    "<<script>script>alert(1)<</script>/script>",
    "**bold<script>**</script>",
    "[a](<javascript:alert(1)>)",
    "[a](//evil.example/)",
    "<xss contenteditable onfocus=alert(1) autofocus>",
]


class Reader(HTMLParser):
    """Collects every tag and attribute that a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def strange_parts(html: str) -> list[str]:
    """Return what a browser would see beyond the allowed tags, attributes and kinds of address."""
    reader = Reader()
    reader.feed(html)
    found = []
    for tag, attributes in reader.seen:
        given_by_us = {"target", "rel"} if tag == "a" else set()
        strange = attributes.keys() - ATTRIBUTES.get(tag, set()) - given_by_us
        href = attributes.get("href")
        found += [tag] * (tag not in TAGS) + [f"{tag} {name}" for name in sorted(strange)]
        if href is not None and not re.match(r"(https?:|mailto:|/|#|[\w.%?&=~-]+$)", href):
            found.append(href)
    return found


def test_the_reader_of_these_tests_sees_what_would_run() -> None:
    html = '<p onclick="x()">a</p><script>x()</script><a href="javascript:x()" target="_blank">b</a><em>c</em>'
    assert strange_parts(html) == ["p onclick", "script", "javascript:x()"]


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize(
    "frame", ["{}", "text {} text", "- {}\n- {}", "> {}", "**{}**", "[{}](http://a)", "# {}\n\n{}"]
)
def test_nothing_that_runs_gets_through(payload: str, frame: str) -> None:
    assert strange_parts(render_markdown(frame.replace("{}", payload))) == []


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([*PAYLOADS, "\n", "\n\n", "`", "```", "[", "](", ")", "<", ">", "|", '"', "'", "a"])))
def test_nothing_that_runs_gets_through_in_any_mixture(pieces: list[str]) -> None:
    assert strange_parts(render_markdown("".join(pieces))) == []


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_any_text_can_be_rendered(text: str) -> None:
    assert strange_parts(render_markdown(text)) == []


def test_markdown_is_rendered_as_people_expect() -> None:
    html = render_markdown("# Title\n\n1. one\n2. *two*\n\n**bold** ~~gone~~ `code`\nnext line\n\n|a|\n|-|\n|1|")
    for part in (
        "<h1>Title</h1>",
        "<ol>",
        "<em>two</em>",
        "<strong>bold</strong>",
        "<s>gone</s>",
        "<br>",
        "<td>1</td>",
    ):
        assert part in html


def test_code_is_coloured_by_classes_alone() -> None:
    html = render_markdown("```python\ndef f():\n    return 1\n```")
    assert html.startswith('<pre><code class="language-python">')
    assert '<span class="k">def</span>' in html
    assert "style" not in html


def test_code_keeps_every_character() -> None:
    code = "\n  if a < b && c > d:\n\t'quoted' \"twice\"  \n\nend"
    html = render_markdown(f"```\n{code}\n```")
    text = re.sub(r"<[^>]*>", "", html)
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&#39;", "'"), ("&#x27;", "'")):
        text = text.replace(entity, character)
    assert text.replace("&amp;", "&").rstrip("\n") == code


def test_links_open_elsewhere_and_tell_nothing() -> None:
    html = render_markdown("[x](https://example.org)")
    assert 'rel="noopener noreferrer nofollow"' in html
    assert 'target="_blank"' in html


def test_deep_nesting_is_rendered_and_harmless() -> None:
    for text in (">" * 3000 + "x", "[" * 3000, "*" * 5000 + "x", "- " * 2000 + "x", "(" * 5000 + "`" * 999):
        assert strange_parts(render_markdown(text)) == []
