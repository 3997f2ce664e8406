"""HTML as Markdown, by html-to-markdown: headings, lists, tables, code; no scripts, menus or link targets."""

import html
import re

from chunkstore.errors import UnreadableFile
from chunkstore.ingest.decoding import decoded
from chunkstore.ingest.document import Document
from chunkstore.ingest.formats.installed import not_installed
from chunkstore.ingest.formats.marking import heading
from chunkstore.ingest.formats.xhtml import as_html, is_xhtml

_LEFT_OUT = [
    *("nav", "footer", "[role=navigation]", "[role=search]", "svg", "button", "select", "textarea"),
    *("a.headerlink", "a.anchor", "a.anchorjs-link", "a.footnote-back"),
]
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_TITLE = re.compile(r"<title\b[^>]{0,500}>([^<]{0,1000})", re.IGNORECASE)
_FIRST_HEADING = re.compile(r"<h1[\s>]", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z!?]")
_MAX_DEPTH = 1_024


def read(content: bytes) -> Document:
    """A page; its title is the first heading where it has no other of that rank."""
    source = decoded(content)
    if not _TAG.search(source):
        return Document(source, "text")
    text = to_markdown(source)
    if not text:
        raise UnreadableFile("no text: a page of scripts, images or nothing")
    shown = _COMMENT.sub("", source)
    title = _TITLE.search(shown)
    if title and not _FIRST_HEADING.search(shown):
        text = f"{heading(html.unescape(title[1]), 1)}\n\n{text}".lstrip()
    return Document(text + "\n", "markdown")


def to_markdown(source: str) -> str:
    """The page as Markdown, without white space around it. Raises UnreadableFile where it nests too deep."""
    try:
        from html_to_markdown import ConversionOptions, PreprocessingOptions, convert
    except ImportError as error:
        raise not_installed("HTML", "html-to-markdown") from error
    result = convert(
        as_html(source) if is_xhtml(source) else source,
        ConversionOptions(
            preprocessing=PreprocessingOptions(enabled=False),
            bullets="-",
            autolinks=False,
            compact_tables=True,
            br_in_tables=False,
            expand_abbreviations=False,
            extract_metadata=False,
            highlight_style="none",
            skip_images=True,
            strip_tags=["a"],
            exclude_selectors=_LEFT_OUT,
            max_depth=_MAX_DEPTH,
        ),
    )
    if any("depth" in str(warning.message).lower() for warning in result.warnings):
        raise UnreadableFile(f"its elements nest more than {_MAX_DEPTH:,} deep")
    return (result.content or "").strip()
