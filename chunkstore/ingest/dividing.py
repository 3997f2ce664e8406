"""Divides pieces into chunks so that an edit changes the chunks that it touches and hardly any other.

A run that is too large for a chunk is cut in two at its best place, and so are its parts. Of places that are
as good, the one with the largest checksum of what follows is the best: so the same text gives the same cuts
wherever it stands, as the shape of a treap depends on its keys and not on the order of their arrival.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from zlib import crc32

from chunkstore.ingest.cuts import Strength
from chunkstore.ingest.pieces import Piece

_WINDOW = 16
"""Chunks' worth of text that is looked at together: bounds memory, and time for a text made to be slow."""
_CHECKED = 64
"""Characters after a place that decide among equals."""
_WHOLE = (
    frozenset({Strength.SENTENCE, Strength.ITEM, Strength.PARAGRAPH}),
    frozenset({Strength.INNER}),
    frozenset({Strength.INNER_SENTENCE}),
    frozenset({Strength.BLANK}),
)
"""What lies between places of the first kind stays whole where it fits; else, of the first two; and so on."""


def divide(text: str, pieces: Iterator[Piece], least: int, most: int) -> Iterator[tuple[int, int]]:
    """Where each chunk begins and ends: none above `most`, and none below `least` where that can be helped.

    Each piece is at most `most` by itself.
    """
    for window in _windows(text, pieces, most):
        units = list(_whole_units(window, most))
        for first, last in _divided(text, units, least, most):
            yield units[first].start, units[last - 1].end


def _windows(text: str, pieces: Iterator[Piece], most: int) -> Iterator[list[Piece]]:
    """The pieces up to each place that no chunk may cross, or up to the best one where that is too far."""
    window: list[Piece] = []
    size = 0
    for piece in pieces:
        if window and (piece.strength is Strength.FORCED or size + piece.size > 2 * _WINDOW * most):
            cut = len(window)
            if piece.strength is not Strength.FORCED:
                sizes = list(accumulate(piece.size for piece in window))
                far = [i for i in range(1, len(window)) if sizes[i - 1] >= _WINDOW * most]
                cut = max(far, key=lambda i: _rank(text, window[i]), default=cut)
            yield window[:cut]
            window = window[cut:]
            size = sum(piece.size for piece in window)
        window.append(piece)
        size += piece.size
    if window:
        yield window


def _rank(text: str, piece: Piece) -> tuple[int, int]:
    return piece.strength, crc32(
        text[piece.start : min(piece.end, piece.start + _CHECKED)].encode(errors="replace")
    )


def _whole_units(pieces: Sequence[Piece], most: int, level: int = 0) -> Iterator[Piece]:
    """Sentences, items, blocks: joined again where that is no more than a chunk holds."""
    begin = 0
    for i in range(1, len(pieces) + 1):
        if i < len(pieces) and not any(pieces[i].strength in kinds for kinds in _WHOLE[: level + 1]):
            continue
        unit = pieces[begin:i]
        begin = i
        size = sum(piece.size for piece in unit)
        if size <= most:
            yield Piece(unit[0].start, unit[-1].end, size, unit[0].strength)
        elif level + 1 < len(_WHOLE):
            yield from _whole_units(unit, most, level + 1)
        else:
            yield from unit


def _divided(text: str, units: Sequence[Piece], least: int, most: int) -> list[tuple[int, int]]:
    """The units of each chunk, as `units[first:last]`."""
    sizes = [0, *accumulate(unit.size for unit in units)]
    ranks = [_rank(text, unit) for unit in units]
    chunks: list[tuple[int, int]] = []
    todo = [(0, len(units))]
    while todo:
        first, last = todo.pop()
        if sizes[last] - sizes[first] <= most or last - first == 1:
            chunks.append((first, last))
            continue
        middle = (sizes[first] + sizes[last]) / 2
        inner = range(first + 1, last)
        enough = [i for i in inner if sizes[first] + least <= sizes[i] <= sizes[last] - least]
        if enough:
            cut = max(enough, key=lambda i: (ranks[i], -abs(sizes[i] - middle)))
        else:
            cut = min(inner, key=lambda i: abs(sizes[i] - middle))
        todo += [(cut, last), (first, cut)]
    return chunks
