"""Finds the cuts in source code by its syntax: functions and classes stay whole where a chunk holds them.

By tree-sitter, where the extra `code` is installed and has the language; a grammar comes in its wheel.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import accumulate
from typing import TYPE_CHECKING

import msgspec

from chunkstore.ingest.cuts import Cut, Strength, code_cuts

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

_GRAMMARS = {
    "bash": ("tree_sitter_bash", "language"),
    "c": ("tree_sitter_c", "language"),
    "c#": ("tree_sitter_c_sharp", "language"),
    "c++": ("tree_sitter_cpp", "language"),
    "go": ("tree_sitter_go", "language"),
    "java": ("tree_sitter_java", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "php": ("tree_sitter_php", "language_php"),
    "python": ("tree_sitter_python", "language"),
    "ruby": ("tree_sitter_ruby", "language"),
    "rust": ("tree_sitter_rust", "language"),
    "typescript": ("tree_sitter_typescript", "language_tsx"),
}
"""By the name of a language, the module of its grammar and the function that gives it."""

_LARGEST = 4_000_000
"""Characters beyond which source code is cut by its lines: it was made by a program."""
_CONTAINER = re.compile(
    r"class|interface|impl|trait|namespace|module|object|enum|struct|extern|export|decorated"
)
_BODY = re.compile(r"body|block|declaration_list|statement_list")
_ATTACHED = re.compile(r"comment|attribute|annotation|decorator")


class _Unit(msgspec.Struct, frozen=True):
    """Something of several lines that should stay whole: its rows, and whether it is a part of another."""

    first: int
    last: int
    inner: bool


def syntax_cuts(text: str, language: str | None) -> Iterator[Cut]:
    """The cuts in source code: by syntax where that can be read here, else by lines."""
    if len(text) > _LARGEST or not is_readable(language):
        yield from code_cuts(text, 0, len(text))
        return
    starts = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]
    units = {unit.first: unit for unit in _units(_parsed(text, language))}
    leaves = sorted(units.values(), key=lambda unit: unit.first)
    firsts = [unit.first for unit in leaves]
    for at, strength in code_cuts(text, 0, len(text)):
        row = bisect_right(starts, at) - 1
        if row in units:
            yield at, Strength.INNER if units[row].inner else Strength.PARAGRAPH
        elif strength > Strength.WITHIN and _is_inside(leaves, firsts, row):
            yield at, Strength.BLANK
        else:
            yield at, strength


@cache
def is_readable(language: str | None) -> bool:
    """True where the grammar of the language is installed."""
    if language not in _GRAMMARS or find_spec("tree_sitter") is None:
        return False
    return find_spec(_GRAMMARS[language][0]) is not None


def how() -> str:
    """`syntax` where source code is cut by it here, else `lines`: part of what a chunker is."""
    return "syntax" if any(map(is_readable, _GRAMMARS)) else "lines"


def _parsed(text: str, language: str | None) -> "Node":
    assert language is not None
    return _parser(language).parse(text.encode(errors="replace")).root_node


def _parser(language: str) -> "Parser":
    from tree_sitter import Language, Parser

    module, function = _GRAMMARS[language]
    return Parser(Language(getattr(import_module(module), function)()))


def _units(root: "Node") -> Iterator[_Unit]:
    """What has several lines at the top, and in every class, module and the like: from its comments on."""
    todo = [(root, False)]
    while todo:
        parent, inner = todo.pop()
        above: Node | None = None
        first = 0
        for child in parent.named_children:
            row = child.start_point.row
            if above is None or not _is_attached(above) or above.end_point.row < row - 1:
                first = row
            above = child
            if _is_attached(child):
                continue
            last = child.end_point.row - (child.end_point.column == 0)  # a line's own end is in some nodes
            if last > row:
                yield _Unit(first, last, inner)
                todo += [(body, True) for body in _bodies(child)]


def _is_attached(node: "Node") -> bool:
    """True for what belongs to the definition right below it."""
    return _ATTACHED.search(node.type) is not None and node.type != "decorated_definition"


def _bodies(node: "Node") -> "Iterator[Node]":
    """Where the members of a class or the like stand; of a function nothing."""
    if not _CONTAINER.search(node.type) or "function" in node.type:
        return
    for child in node.named_children:
        if _BODY.search(child.type):
            yield child
        elif _CONTAINER.search(child.type):
            yield from _bodies(child)


def _is_inside(units: list[_Unit], firsts: list[int], row: int) -> bool:
    """True in a unit that has no units in it, after its first row."""
    i = bisect_right(firsts, row) - 1
    return i >= 0 and units[i].first < row <= units[i].last
