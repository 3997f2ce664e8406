"""Makes Markdown of the lines of PDF pages: paragraphs by the space between lines, headings by their size."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from chunkstore.ingest.formats.marking import heading, plain
from chunkstore.ingest.formats.pdf_lines import Line

_HEADING_RATIO = 1.15
_HEADING_LENGTH = 150
_HEADING_LINES = 3
_MOST_HEADINGS = 0.25
"""Where more of the text than this stands in large letters, they are no headings."""
_WIDE = 1.3
"""So many times the usual distance between two lines ends a paragraph."""
_INDENTED = 0.7
"""So far in, in sizes of letters, a line begins a paragraph where the one above ends a sentence."""
_BULLET = re.compile("^[•‣◦▪▫●○■□–⁃∙·\uf0b7\uf0a7]\\s+(?=\\S)")
_SENTENCE_END = re.compile(r"[.!?:;…。！？؟۔]['\"”’»)\]]*$")
_UNSPACED = "[\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff00-\uffef]"
_UNSPACED_BREAK = re.compile(f"(?<={_UNSPACED})\n(?={_UNSPACED})")
_LETTERS = re.compile(r"[^\W\d_]{2}")


def body_size(lines: Sequence[Line]) -> float:
    """The size of letters in which most of the text is set, in points."""
    letters: Counter[float] = Counter()
    for line in lines:
        letters[line.size] += len(line.text)
    return max(letters.items(), key=lambda item: (item[1], -item[0]))[0]


def heading_levels(lines: Sequence[Line], body: float) -> Mapping[float, int]:
    """The sizes of letters that headings have, each with its level from 1, the largest, to 6."""
    large = [line for line in lines if _is_large(line, body)]
    if sum(len(line.text) for line in large) > _MOST_HEADINGS * sum(len(line.text) for line in lines):
        return {}
    sizes = sorted({line.size for line in large}, reverse=True)
    return {size: min(level, 6) for level, size in enumerate(sizes, 1)}


def written(lines: Sequence[Line], body: float, levels: Mapping[float, int]) -> str:
    """A page as Markdown."""
    usual = _usual_distance(lines)
    parts: list[str] = []
    for paragraph in _paragraphs(lines, usual):
        text = "\n".join(line.text for line in paragraph)
        level = levels.get(paragraph[0].size)
        if level and _is_heading(paragraph, body):
            parts.append(heading(_UNSPACED_BREAK.sub("", text), level))
        else:
            parts.append(_UNSPACED_BREAK.sub("", "\n".join(_item(line) for line in plain(text).split("\n"))))
    return "\n\n".join(parts)


def _is_large(line: Line, body: float) -> bool:
    return line.size >= _HEADING_RATIO * body and _LETTERS.search(line.text) is not None


def _is_heading(paragraph: Sequence[Line], body: float) -> bool:
    length = sum(len(line.text) for line in paragraph)
    large = any(_is_large(line, body) for line in paragraph)
    return large and len(paragraph) <= _HEADING_LINES and length <= _HEADING_LENGTH


def _item(line: str) -> str:
    return _BULLET.sub("- ", line)


def _usual_distance(lines: Sequence[Line]) -> float:
    """The distance of two lines of a paragraph, in points: the lower quartile of all on the page."""
    distances = sorted(
        above.last_y - below.y
        for above, below in pairwise(lines)
        if 0 < above.last_y - below.y < 3 * above.size
    )
    return distances[len(distances) // 4] if distances else 0.0


def _paragraphs(lines: Sequence[Line], usual: float) -> Iterator[list[Line]]:
    paragraph: list[Line] = []
    for line in lines:
        if paragraph and _ends(paragraph[-1], line, usual):
            yield paragraph
            paragraph = []
        paragraph.append(line)
    if paragraph:
        yield paragraph


def _ends(above: Line, below: Line, usual: float) -> bool:
    """True where `below` begins another paragraph than `above` stands in."""
    distance = above.last_y - below.y
    if abs(above.size - below.size) > 0.1 * above.size and abs(distance) > 0.5 * above.size:
        return True
    ended = _SENTENCE_END.search(above.text) is not None
    if distance < -above.size:
        return ended
    return distance > _WIDE * usual or (ended and below.x - above.x > _INDENTED * above.size)
