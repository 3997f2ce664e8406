"""Puts right-to-left text into the order in which it is read, by where its letters stand on the page.

The reverse of displaying by the Unicode Bidirectional Algorithm (UAX 9), for one line without
explicit marks: runs against the line's direction are turned round, numbers never. What a file's
maker wrote first does not matter, as makers differ in that.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import groupby

import msgspec

_RIGHT_TO_LEFT = frozenset({"R", "AL"})
_NUMBERS = frozenset({"EN", "AN"})
_IN_NUMBERS = frozenset({"CS", "ES"})
_OPENING = {"(": ")", "[": "]", "{": "}", "«": "»", "<": ">"}
_CLOSING = {closing: opening for opening, closing in _OPENING.items()}
_INNER_SPACE = re.compile(r"(?<=\S)([(\[{«]) (?=\S)|(?<=\S) ([)\]}»])(?=\S)")
"""A space on the wrong side of a bracket, where both stand at one place."""
_SPACES = re.compile(r" {2,}")
_BULLET_AFTER = re.compile(r"^(.*\S)\s+([•‣◦▪▫●○■□\uf0b7])$")
"""A bullet on the left of right-to-left text."""
_LAM = "\u0644"
_FIRST_LETTER = "\u0590"


class Glyph(msgspec.Struct, frozen=True):
    """One character and where its glyph begins on the line, in points from the left."""

    text: str
    x: float


def is_right_to_left(text: str) -> bool:
    """True where some letter of the text is written from right to left."""
    return any(char >= _FIRST_LETTER and unicodedata.bidirectional(char) in _RIGHT_TO_LEFT for char in text)


def logical(glyphs: Iterable[Glyph]) -> str:
    """The text of a line of glyphs in the order in which it is read, without doubled spaces."""
    placed = [
        glyph for _, group in groupby(glyphs, lambda glyph: glyph.x) for glyph in _ligature(list(group))
    ]
    classes = [_class(glyph) for glyph in placed]
    backwards = 2 * sum(kind in _RIGHT_TO_LEFT for kind in classes) > sum(kind == "L" for kind in classes)
    if backwards:
        read = _from_right(sorted(placed, key=lambda glyph: -glyph.x))
    else:
        read = _from_left(sorted(placed, key=lambda glyph: glyph.x))
    return _BULLET_AFTER.sub(r"\2 \1", _bracketed(_SPACES.sub(" ", "".join(glyph.text for glyph in read))))


def _ligature(group: list[Glyph]) -> list[Glyph]:
    """The letters of one glyph in order; where a lam comes last they were turned round, as it begins them."""
    return group[::-1] if len(group) > 1 and group[-1].text[0] == _LAM else group


def _class(glyph: Glyph) -> str:
    return unicodedata.bidirectional(glyph.text[:1])


def _from_right(glyphs: Sequence[Glyph]) -> list[Glyph]:
    """Glyphs from right to left, with the runs that are read from left to right turned round."""
    read: list[Glyph] = []
    arabic = any(_class(glyph) == "AL" for glyph in glyphs)
    numeric = _NUMBERS if arabic else _NUMBERS | {"ET"}
    for run, turned in _runs(glyphs, _RIGHT_TO_LEFT, numeric | {"L"}):
        if not turned:
            read += run
        elif any(_class(glyph) == "L" for glyph in run):
            read += reversed(run)
        else:
            read += _numbers(run, numeric)
    return read


def _from_left(glyphs: Sequence[Glyph]) -> list[Glyph]:
    """Glyphs from left to right, with the runs that are read from right to left turned round."""
    read: list[Glyph] = []
    for run, turned in _runs(glyphs, frozenset({"L"}), _RIGHT_TO_LEFT | _NUMBERS):
        stretch = list(run)
        has_letters = turned and any(_class(glyph) in _RIGHT_TO_LEFT for glyph in stretch)
        read += _from_right(stretch[::-1]) if has_letters else stretch
    return read


def _runs(
    glyphs: Sequence[Glyph], straight: frozenset[str], against: frozenset[str]
) -> list[tuple[Sequence[Glyph], bool]]:
    """The glyphs in runs; True marks those of the classes `against`, with spaces and marks inside them.

    Spaces and marks between the two belong to the straight run.
    """
    runs: list[tuple[Sequence[Glyph], bool]] = []
    start = 0
    while start < len(glyphs):
        turned = _class(glyphs[start]) in against
        end, last = start + 1, start + 1
        while end < len(glyphs) and _class(glyphs[end]) not in (straight if turned else against):
            last = end + 1 if _class(glyphs[end]) in against else last
            end += 1
        stop = last if turned else end
        runs.append((glyphs[start:stop], turned))
        start = stop
    return runs


def _numbers(run: Sequence[Glyph], numeric: frozenset[str]) -> list[Glyph]:
    """A run without letters: each number in it turned round, the numbers in the order in which they stand."""
    read: list[Glyph] = []
    number: list[Glyph] = []
    for position, glyph in enumerate(run):
        kind = _class(glyph)
        beside = position + 1 < len(run) and _class(run[position + 1]) in _NUMBERS
        if kind in numeric or (number and kind in _IN_NUMBERS and beside):
            number.append(glyph)
        else:
            read += [*reversed(number), glyph]
            number = []
    return [*read, *reversed(number)]


def _bracketed(text: str) -> str:
    """The text with brackets that open and close: some makers write their mirror images, some do not."""
    left = {opening: text.count(opening) + text.count(closing) for opening, closing in _OPENING.items()}
    open_ones = dict.fromkeys(_OPENING, 0)
    read: list[str] = []
    for char in text:
        opening = char if char in _OPENING else _CLOSING.get(char)
        if opening is None:
            read.append(char)
            continue
        closes = open_ones[opening] > 0 and (char in _CLOSING or left[opening] <= open_ones[opening])
        open_ones[opening] += -1 if closes else 1
        left[opening] -= 1
        read.append(_OPENING[opening] if closes else opening)
    return _INNER_SPACE.sub(lambda found: f" {found[1]}" if found[1] else f"{found[2]} ", "".join(read))
