"""Word documents: made HTML by mammoth (paragraph styles, lists, tables, notes), then Markdown."""

from io import BytesIO
from typing import Any, cast
from zipfile import ZipFile

from chunkstore.errors import UnreadableFile
from chunkstore.ingest.document import Document
from chunkstore.ingest.formats.archive import checked, opened, root
from chunkstore.ingest.formats.html import to_markdown
from chunkstore.ingest.formats.installed import not_installed
from chunkstore.ingest.formats.word_inserts import with_inserts
from chunkstore.ingest.formats.word_xml import rewritten

_RELATIONS = "_rels/.rels"
_USUAL_MAIN = "word/document.xml"
_STYLES = r"""
p[style-name='Title'] => h1:fresh
p[style-name='Subtitle'] => p:fresh
p[style-name='Source Code'] => pre:separator('\n')
p[style-name='HTML Preformatted'] => pre:separator('\n')
p[style-name='Preformatted Text'] => pre:separator('\n')
p[style-name='Plain Text'] => pre:separator('\n')
r[style-name='Verbatim Char'] => code
r[style-name='Source Text'] => code
r[style-name='HTML Code'] => code
"""


def read(content: bytes) -> Document:
    """The text of the document's body with its notes; no headers, footers, comments or deleted text."""
    try:
        from mammoth import convert_to_html, images  # pyright: ignore[reportUnknownVariableType]
    except ImportError as error:
        raise not_installed("Word document", "mammoth") from error
    main = _main_part(opened(content))
    archive = checked(content, main)
    document = rewritten(content, archive)
    without_images: Any = cast("Any", images).img_element(_no_attributes)
    result: Any = convert_to_html(BytesIO(document), style_map=_STYLES, convert_image=without_images)
    text = with_inserts(to_markdown(result.value), archive, main)
    if not text:
        raise UnreadableFile("no text: an empty document, or one of images; OCR is not done here")
    return Document(text + "\n", "markdown")


def _main_part(archive: ZipFile) -> str:
    """The member that holds the document's body; the usual one where none is named that is there."""
    names = archive.namelist()
    relations = root(archive, _RELATIONS) if _RELATIONS in names else ()
    targets = (
        relation.get("Target", "").lstrip("/")
        for relation in relations
        if relation.get("Type", "").endswith("/officeDocument")
    )
    return next((target for target in targets if target in names), _USUAL_MAIN)


def _no_attributes(_image: object) -> dict[str, str]:
    return {}
