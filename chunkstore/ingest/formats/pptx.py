"""PowerPoint slides, by python-pptx: each is a page, its title a heading, its text lists; then its notes."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any, cast

from chunkstore.errors import UnreadableFile
from chunkstore.ingest.document import Document
from chunkstore.ingest.formats.archive import checked, refuse_strict
from chunkstore.ingest.formats.installed import not_installed
from chunkstore.ingest.formats.marking import blocks, heading, one_line, paged, plain, table

_PRESENTATION = "ppt/presentation.xml"
_MAX_DEPTH = 20
_ALTERNATIVES = "{http://schemas.openxmlformats.org/markup-compatibility/2006}AlternateContent"
_INK = "{http://schemas.openxmlformats.org/presentationml/2006/main}contentPart"
_DRAWN_FROM = ".//a:graphicData/c:chart/@r:id | .//a:graphicData/*/@r:dm"
"""The part that a chart or a diagram (SmartArt) is drawn from, in the frame that shows it."""
_WORDS = "//a:p | //c:strCache/c:pt/c:v"
_SPACES = {
    "a": "http://schemas.openxmlformats.org/drawingml/2006/main",
    "c": "http://schemas.openxmlformats.org/drawingml/2006/chart",
}


def read(content: bytes) -> Document:
    """The slides in order of showing, hidden ones included."""
    try:
        from pptx import Presentation
    except ImportError as error:
        raise not_installed("PowerPoint presentation", "python-pptx") from error
    refuse_strict(checked(content, _PRESENTATION), _PRESENTATION)
    slides = [blocks(_slide(slide)) for slide in Presentation(BytesIO(content)).slides]
    if not any(slides):
        raise UnreadableFile(f"no text: {len(slides)} slides of images or nothing; OCR is not done here")
    text, pages = paged(slides)
    return Document(text, "markdown", pages=pages)


def _slide(slide: Any) -> Iterator[str]:
    _choose(slide.element)
    title = slide.shapes.title
    if title is not None:
        yield heading(title.text_frame.text, 2)
    for shape in slide.shapes:
        if shape != title:
            yield from _shape(shape, 0)
    if slide.has_notes_slide and (notes := slide.notes_slide.notes_text_frame) is not None:
        yield plain(notes.text.strip())


def _choose(slide: Any) -> None:
    """Puts the first of alternatives in their place: the others are for older programs, often as pictures."""
    for alternatives in list(slide.iter(_ALTERNATIVES)):
        for element in list(next(iter(alternatives), ())):
            alternatives.addprevious(element)
        alternatives.getparent().remove(alternatives)
    for ink in list(slide.iter(_INK)):  # python-pptx fails at it
        ink.getparent().remove(ink)


def _shape(shape: Any, depth: int) -> Iterator[str]:
    if depth < _MAX_DEPTH and hasattr(shape, "shapes"):
        for inner in shape.shapes:
            yield from _shape(inner, depth + 1)
    elif getattr(shape, "has_table", False):
        yield table([[cell.text for cell in row.cells] for row in shape.table.rows])
    elif shape.has_text_frame:
        yield _paragraphs(shape)
    elif hasattr(shape, "has_chart"):
        for relation in shape.element.xpath(_DRAWN_FROM):
            yield _drawn(shape.part.related_part(relation).blob)


def _drawn(source: bytes) -> str:
    """The words of a diagram, or those of a chart: its titles, series and categories, each once."""
    from pptx.oxml import parse_xml

    root = cast("Any", parse_xml(source))
    found = root.getroottree().xpath(_WORDS, namespaces=_SPACES)
    lines = (one_line(element.xpath("string()")) for element in found)
    return plain("\n".join(dict.fromkeys(line for line in lines if line)))


def _paragraphs(shape: Any) -> str:
    """The paragraphs of a body as a list, of anything else as lines."""
    written = [(paragraph.level, one_line(paragraph.text)) for paragraph in shape.text_frame.paragraphs]
    written = [(level, text) for level, text in written if text]
    if len(written) > 1 and shape.is_placeholder:
        return "\n".join("  " * level + f"- {text}" for level, text in written)
    return plain("\n".join(text for _, text in written))
