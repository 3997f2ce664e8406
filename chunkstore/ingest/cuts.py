"""Finds the places of a text where a chunk may begin, and says how good each is.

A place and its strength depend on the text around it alone, never on its offset: so an edit changes those
near it and no others.
"""

import re
from collections.abc import Iterator
from enum import IntEnum


class Strength(IntEnum):
    """How good a place for a chunk to begin: the higher, the better."""

    WITHIN = 0
    """In a sentence, a table row, a line or a function: only where that is too large for a chunk."""
    BLANK = 1
    """At a blank line in a code block amid prose."""
    INNER_SENTENCE = 2
    """At a sentence of a list item or an indented paragraph."""
    SENTENCE = 3
    INNER = 4
    """At a paragraph or item that belongs to the less indented one above it."""
    ITEM = 5
    """At a list item or a table row."""
    PARAGRAPH = 6
    FORCED = 7
    """Where no chunk may go on."""


Cut = tuple[int, Strength]

_BLANK_LINES = re.compile(r"\n(?:[ \t\r\f\v]*+\n)++")
_LINE_END = re.compile(r"\n(?:[ \t\r]*+\n)*+")
_LEADING_BLANK_LINES = re.compile(r"(?:[ \t\r\f\v]*+\n)*+")
_INDENT = re.compile(r"[ \t]*+")
_SENTENCE_END = re.compile(r"""[.!?…]["'”’»)\]*_]*+\s++(?![a-z])|[。！？｡؟۔।॥։።။។]["'”’»）」』)\]*_]*+\s*+""")
_LAST_WORD = re.compile(r"(?:(?P<line>\A|\n)[ \t]*|[\s(\[“\"'])(?P<word>\S{1,7})\.$")
_ABBREVIATED = re.compile(r"[A-Z]|Dr|Mrs?|Ms|Prof|St|vs|cf|[Ee]\.g|[Ii]\.e|z\.B|d\.h|approx|[Cc]a")
_NUMBERED = re.compile(r"[Nn]o|Nr|[Ff]igs?|[Ss]ec|[Cc]h|[Ee]q|[Vv]ol|pp?|Art")
_LIST_NUMBER = re.compile(r"\(?(?:[0-9]{1,3}|[A-Za-z]|#)")
_LIST_MARK = r"([ \t]*+)(?:[-*+•–]|[0-9]{1,3}[.)]|\(?[a-z][.)]|#\.)[ \t]"
_FIRST_ITEM = re.compile(_LIST_MARK)
_LIST_ITEM = re.compile(rf"\n{_LIST_MARK}")
_MARKDOWN_RULE = re.compile(r"\|?(?:[ \t]*:?-+:?[ \t]*\|)+(?:[ \t]*:?-+:?[ \t]*)?")
_GRID_RULE = re.compile(r"\+(?:[-=]+\+)+")
_SIMPLE_RULE = re.compile(r"={2,}(?:[ \t]+={2,})+")


def prose_cuts(text: str, start: int, end: int) -> Iterator[Cut]:
    """Paragraphs, list items, table rows and sentences of `text[start:end]`."""
    indents: list[int] = []
    start = past_blank_lines(text, start, end)
    for stop, following in _paragraphs(text, start, end):
        inner = _is_inner(indents, _indent(text, start))
        yield start, Strength.INNER if inner else Strength.PARAGRAPH
        yield from _paragraph_cuts(text, start, stop, inner=inner)
        start = following


def _paragraphs(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where each paragraph ends, and where the next begins."""
    for blank in _BLANK_LINES.finditer(text, start, end):
        yield blank.start(), blank.end()
    yield end, end


def past_blank_lines(text: str, start: int, end: int) -> int:
    """Where the first line that is not blank begins."""
    found = _LEADING_BLANK_LINES.match(text, start, end)
    return found.end() if found else start


def _indent(text: str, at: int) -> int:
    if text[at : at + 1] not in {" ", "\t"}:
        return 0
    found = _INDENT.match(text, at)
    return len(found[0].expandtabs()) if found else 0


def _is_inner(indents: list[int], indent: int) -> bool:
    """True where a less indented paragraph stands above; `indents` are those of the ones that it is in."""
    while indents and indents[-1] >= indent:
        indents.pop()
    indents.append(indent)
    return len(indents) > 1


def _paragraph_cuts(text: str, start: int, end: int, *, inner: bool) -> list[Cut]:
    if rows := _rows(text, start, end):
        return rows
    items = list(_items(text, start, end))
    first = items[0][0] if items else end
    cuts: dict[int, Strength] = {}
    for found in _SENTENCE_END.finditer(text, start, end):
        at = found.end()
        if at < end and (text[found.start()] != "." or _is_full_stop(text, start, found)):
            cuts[at] = Strength.INNER_SENTENCE if inner or at > first else Strength.SENTENCE
    outermost = min((indent for _, indent in items), default=0)
    for at, indent in items:
        cuts[at] = Strength.INNER if inner or indent > outermost else Strength.ITEM
    cuts.pop(start, None)
    return sorted(cuts.items())


def _items(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where each list item begins, and how far it is indented."""
    if found := _FIRST_ITEM.match(text, start, end):
        yield start, len(found[1].expandtabs())
    for found in _LIST_ITEM.finditer(text, start, end):
        yield found.start() + 1, len(found[1].expandtabs())


def _is_full_stop(text: str, start: int, stop: re.Match[str]) -> bool:
    """False after an abbreviation, an initial, or the number of a list item."""
    at = stop.start() + 1
    last = _LAST_WORD.search(text[max(start, at - 10) : at])
    if last is None:
        return True
    word, starts_line = last["word"], last["line"] is not None and (last["line"] or at - start <= 10)
    if _ABBREVIATED.fullmatch(word) or (starts_line and _LIST_NUMBER.fullmatch(word)):
        return False
    return not (_NUMBERED.fullmatch(word) and text[stop.end() : stop.end() + 1].isdecimal())


def _rows(text: str, start: int, end: int) -> list[Cut]:
    """The rows of a table, as Markdown and reStructuredText have them; none where it is no table."""
    if text.find("|", start, end) < 0 and text.find("==", start, end) < 0:
        return []
    lines = list(_lines(text, start, end))
    rules = [i for i, (first, last) in enumerate(lines) if _is_rule(text[first:last].strip())]
    if not rules:
        return []
    at_rule = frozenset(rules)
    cuts: list[Cut] = []
    is_grid = text[lines[rules[0]][0] : lines[rules[0]][1]].lstrip().startswith("+")
    header = rules[0] if is_grid or len(rules) > 1 else rules[0] - 1
    for i, (first, _) in enumerate(lines[1:], 1):
        if is_grid:
            whole = i in at_rule and i < len(lines) - 1
        else:
            whole = not at_rule & {i, i - 1} and not text[first].isspace()
        cuts.append((first, Strength.ITEM if whole or i == header else Strength.WITHIN))
    return cuts


def _is_rule(line: str) -> bool:
    return any(rule.fullmatch(line) for rule in (_MARKDOWN_RULE, _GRID_RULE, _SIMPLE_RULE))


def _lines(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end:
        newline = text.find("\n", start, end)
        stop = end if newline < 0 else newline
        yield start, stop
        start = stop + 1


def fence_cuts(text: str, start: int, end: int) -> Iterator[Cut]:
    """Lines of a code block amid prose: it follows its introduction, and is divided at blank lines first."""
    yield start, Strength.SENTENCE
    for gap in _LINE_END.finditer(text, start, end):
        blank = text.count("\n", gap.start(), gap.end()) > 1
        yield gap.end(), Strength.BLANK if blank else Strength.WITHIN


def code_cuts(text: str, start: int, end: int) -> Iterator[Cut]:
    """Lines of source code: best where a blank line is followed by one that is not indented."""
    yield start, Strength.PARAGRAPH
    for gap in _LINE_END.finditer(text, start, end):
        flush = not text[gap.end() : gap.end() + 1].isspace()
        if text.count("\n", gap.start(), gap.end()) > 1:
            yield gap.end(), Strength.PARAGRAPH if flush else Strength.INNER
        else:
            yield gap.end(), Strength.WITHIN
