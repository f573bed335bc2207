"""A study's report as one HTML page, rendered from its Markdown.

The page is read in the artifact tab of MLflow, a sandboxed frame that can fetch nothing else: it embeds everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markdown_it.token import Token

_MARKS = {"**!** ": "grave", "✓ ": "fine"}


def page_of(markdown: str, title: str, verdict: str, figures: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        markdown: the report. Its images name figures; any other image is shown as its text.
        title: of the page.
        verdict: helps, hurts, undecided, doubt or "": the colour of the first paragraph.
        figures: name → ``<svg>`` element.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    loader = FileSystemLoader(Path(__file__).parent)
    template = Environment(loader=loader, undefined=StrictUndefined, autoescape=True).get_template("page.html.jinja")
    return str(template.render(title=title, body=Markup(_rendered(markdown, verdict, figures))))


def _rendered(markdown: str, verdict: str, figures: Mapping[str, str]) -> str:
    from markdown_it import MarkdownIt
    from markdown_it.common.utils import escapeHtml

    def image(_self: Any, tokens: Sequence[Token], place: int, *_: Any) -> str:
        name, text = str(tokens[place].attrs["src"]), escapeHtml(tokens[place].content)
        if name not in figures:
            return text
        kind = "forest" if name.startswith("forest") else "chart"
        return f'<figure class="{kind}" role="img" aria-label="{text}">{figures[name]}</figure>'

    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["link", "autolink"])
    parser.add_render_rule("image", image)
    parser.add_render_rule("table_open", _table_open)
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    tokens = parser.parse(markdown)
    _classify(tokens, verdict)
    return str(parser.renderer.render(tokens, parser.options, {}))


def _table_open(_self: Any, tokens: Sequence[Token], place: int, *_: Any) -> str:
    """Open a table in a region that scrolls by itself and is named after the heading above it."""
    from markdown_it.common.utils import escapeHtml

    headings = [tokens[n + 1] for n in range(place) if tokens[n].type == "heading_open"]
    label = escapeHtml(_plain(headings[-1])) if headings else ""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table>\n'


def _classify(tokens: Sequence[Token], verdict: str) -> None:
    """Add the elements that the style sheet needs: classes, row headings, and rows of figures instead of paragraphs."""
    for number, opening in enumerate(tokens):
        if opening.type == "paragraph_open" and _only_images(tokens[number + 1]):
            opening.tag = tokens[number + 2].tag = "div"
            opening.attrSet("class", "figures")
        elif opening.type == "td_open" and tokens[number - 1].type == "tr_open":
            opening.tag = tokens[number + 2].tag = "th"
            opening.attrSet("scope", "row")
        elif opening.type == "td_open" and tokens[number + 1].content.startswith("**"):
            opening.attrSet("class", _mark(tokens[number + 1].content.strip("*")))
        elif opening.type == "list_item_open":
            content = tokens[number + 2].content
            opening.attrSet("class", next((kind for mark, kind in _MARKS.items() if content.startswith(mark)), "plain"))
    next(token for token in tokens if token.type == "paragraph_open").attrSet("class", f"verdict {verdict}".strip())


def _mark(text: str) -> str:
    """Return the class of a table's bold text: a verdict, a difference by its sign, or something doubtful."""
    if text in ("helps", "hurts"):
        return text
    return {"+": "helps", "-": "hurts"}.get(text[:1], "doubt")


def _only_images(inside: Token) -> bool:
    children = inside.children or []
    return bool(children) and all(child.type in ("image", "softbreak") for child in children)


def _plain(inline: Token) -> str:
    return "".join(child.content for child in inline.children or [])
