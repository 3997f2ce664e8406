"""Edits of a real document as its author makes them: a sentence put in, taken out, replaced; a section moved.

Where sentences and sections begin is found here by rules of its own, not by those of the chunker under test.
"""

import random
import re
from collections.abc import Iterator, Sequence

import msgspec

from chunkstore.ingest.document import Document

PLACES = {"start": (0.0, 0.1), "middle": (0.45, 0.55), "end": (0.9, 1.0)}
"""Parts of a document by its sentences."""
WORK = tuple(f"{kind}, {place}" for kind in ("insert", "delete", "replace") for place in PLACES)
MOVE, MOVE_PARAGRAPHS = "move a section", "move paragraphs"
"""Paragraphs are moved in a document without three sections under one heading: a tenth of it, to anywhere."""

_SENTENCE = re.compile(
    r"(?:(?<=[.!?] )|(?<=[。！？؟۔।])|(?<=\n\n))(?=\S)[^\n#|`>*=.-]"
    r"(?:[^\n.!?。！？؟۔।]|[.](?=\S)|\n(?=\w)){20,400}?"
    r"(?:[.!?](?=\s)|[。！？؟۔।])"
)
_FENCE = re.compile(r"^ {0,3}(```|~~~).*?(?:^ {0,3}\1[^\n]*$|\Z)", re.MULTILINE | re.DOTALL)
_MARKED = re.compile(r"^(#{1,6}) +\S", re.MULTILINE)
_UNDERLINED = re.compile(r"(?:(?<=\n\n)|\A)(?=(\S[^\n]*\n([=\-~^*+#\"'.`])\2{3,}[ \t]*\n))")
_PARAGRAPH = re.compile(r"\n[ \t]*\n(?=[^\s])")
_WORD = re.compile(r"[^\W\d_]{2,}")


class Edit(msgspec.Struct, frozen=True):
    """What was done, and the text that it left."""

    work: str
    text: str


Span = tuple[int, int]


def edits(document: Document, rng: random.Random) -> Iterator[Edit]:
    """One edit of every kind at every place, and a section moved, where the document has what it takes."""
    text = document.text
    said = sentences(text)
    for place, (low, high) in PLACES.items():
        near = said[int(low * len(said)) : max(int(high * len(said)), int(low * len(said)) + 1)]
        if not near:
            continue
        start, end = rng.choice(near)
        invented = _invented(text, rng)
        gap = "" if ord(invented[-1]) > 0x2000 else " "
        yield Edit(f"insert, {place}", text[:start] + invented + gap + text[start:])
        yield Edit(f"delete, {place}", text[:start] + text[end:].lstrip(" "))
        yield Edit(f"replace, {place}", text[:start] + invented + text[end:])
    found = _sections(document)
    if moved := _moved(text, found or _paragraph_runs(text), rng):
        yield Edit(MOVE if found else MOVE_PARAGRAPHS, moved)


def sentences(text: str) -> list[Span]:
    """Whole sentences of 20 to 400 characters in prose, outside code blocks, headings, tables and quotes."""
    fences = code_blocks(text)
    return [found.span() for found in _SENTENCE.finditer(text) if not _within(fences, found.start())]


def code_blocks(text: str) -> list[Span]:
    """Fenced blocks of code."""
    return [found.span() for found in _FENCE.finditer(text)]


def headings(document: Document) -> list[tuple[int, int]]:
    """Where each heading begins, and its level, by the marks of Markdown or by the line below it."""
    fences = code_blocks(document.text)
    return [(at, level) for at, level in _marked(document) if not _within(fences, at)]


def _within(spans: list[Span], at: int) -> bool:
    return any(start <= at < end for start, end in spans)


def _invented(text: str, rng: random.Random) -> str:
    """A sentence of words of the document itself."""
    words = _WORD.findall(text)
    chosen = rng.choices(words, k=rng.randint(7, 20))
    if ord(chosen[0][0]) > 0x2E80:
        return "".join(chosen)[:40] + "。"
    return " ".join(chosen).capitalize() + "."


def _moved(text: str, found: Sequence[Span], rng: random.Random) -> str | None:
    """The text with one of the spans found before another."""
    movable = [span for span in found if span[1] - span[0] > 200]
    if not movable:
        return None
    start, end = rng.choice(movable)
    others = [other for other, _ in found if other < start or other > end]
    if not others:
        return None
    to = rng.choice(others)
    section = text[start:end]
    if end == len(text):
        section = section.rstrip() + "\n\n"  # else its last line would stand on the next section's title
    if to < start:
        return text[:to] + section + text[to:start] + text[end:]
    return text[:start] + text[end:to] + section + text[to:]


def _sections(document: Document) -> list[Span]:
    """The sections that are children of one heading, of the one that has most."""
    heads = headings(document)
    families: dict[int, list[Span]] = {}
    path: dict[int, int] = {}
    for i, (start, level) in enumerate(heads):
        path = {above: number for above, number in path.items() if above < level}
        parent = path[max(path)] if path else -1
        path[level] = i
        end = next((at for at, other in heads[i + 1 :] if other <= level), len(document.text))
        families.setdefault(parent, []).append((start, end))
    largest = max(families.values(), key=len, default=[])
    return largest if len(largest) > 2 else []


def _marked(document: Document) -> Iterator[tuple[int, int]]:
    if document.kind == "markdown":
        for found in _MARKED.finditer(document.text):
            yield found.start(), len(found[1])
        return
    levels: dict[str, int] = {}
    for found in _UNDERLINED.finditer(document.text):
        yield found.start(), levels.setdefault(found[2], len(levels))


def _paragraph_runs(text: str) -> list[Span]:
    """Runs of paragraphs, a tenth of the text each."""
    starts = [0, *(found.end() for found in _PARAGRAPH.finditer(text)), len(text)]
    runs: list[Span] = []
    first = 0
    for start in starts[1:]:
        if start - first >= len(text) // 10:
            runs.append((first, start))
            first = start
    return runs
