"""XHTML as HTML: what XML writes in a way that means something else, or nothing, in HTML."""

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
_CLOSED = re.compile(
    r"<!--.*?(?:-->|\Z)"
    r"|<(?P<name>[a-zA-Z][\w:.-]*+)(?P<attributes>(?:[^<>\"'/]|/(?!>)|\"[^\"<]*\"|'[^'<]*')*+)/>",
    re.DOTALL,
)
"""An element without content; comments too, so that nothing is changed inside one."""


def is_xhtml(source: str) -> bool:
    """True where the page says that it is XML, in its first characters."""
    head = source[:_HEAD]
    return head.lstrip().startswith("<?xml") or any(sign in head for sign in _SIGNS)


def as_html(source: str) -> str:
    """The page with `<title/>` written as `<title></title>`, which HTML takes for the beginning of one."""
    return _CLOSED.sub(_opened, source)


def _opened(found: re.Match[str]) -> str:
    name = found["name"]
    if name is None or name.lower() in _VOID:
        return found[0]
    return f"<{name}{found['attributes']}></{name}>"
