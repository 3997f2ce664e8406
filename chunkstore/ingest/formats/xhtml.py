"""XHTML as HTML: what XML writes in a way that means something else, or nothing, in HTML."""

import html
import re

_HEAD = 2_000
_SIGNS = ("//DTD XHTML", "www.w3.org/1999/xhtml")
_VOID = {
    "area",
    "base",
    "br",
    "col",
    "embed",
    "hr",
    "img",
    "input",
    "link",
    "meta",
    "param",
    "source",
    "track",
    "wbr",
}
_WRITTEN_AS_XML = re.compile(
    r"<!--.*?(?:-->|\Z)"
    r"|<!\[CDATA\[(?P<text>.*?)(?P<end>\]\]>|\Z)"
    r"|<(?P<name>[a-zA-Z][\w:.-]*+)(?P<attributes>(?:[^<>\"'/]|/(?!>)|\"[^\"<]*\"|'[^'<]*')*+)/>",
    re.DOTALL,
)
"""Text that needs no escapes, and an element without content; comments too, where nothing is changed."""


def is_xhtml(source: str) -> bool:
    """True where the page says that it is XML, in its first characters."""
    head = source[:_HEAD]
    return head.lstrip().startswith("<?xml") or any(sign in head for sign in _SIGNS)


def as_html(source: str) -> str:
    """The page with `<title/>`, which opens a title in HTML, as `<title></title>`, and CDATA as text."""
    return _WRITTEN_AS_XML.sub(_as_html, source)


def _as_html(found: re.Match[str]) -> str:
    if found["end"]:
        return html.escape(found["text"], quote=False)
    name = found["name"]
    if name is None or name.lower() in _VOID:
        return found[0]
    return f"<{name}{found['attributes']}></{name}>"
