"""Chunks as a person reads them: what to cite each by, and its text."""

from textwrap import fill, indent, shorten
from typing import TYPE_CHECKING

from chunkstore.cli.output import clean, out, print_line

if TYPE_CHECKING:
    from rich.text import Text

    from chunkstore.model import Hit, Place, StoredChunk

_SHOWN = 320


def show_hit(rank: int, hit: "Hit", *, full: bool = False) -> None:
    """One hit on standard output: what to cite it by, and its text."""
    from rich.text import Text

    cited = ", ".join([f"v{hit.version}", *_where(hit.place), f"chunk {hit.ordinal}"])
    key = clean(hit.key).replace("\n", "�")  # a key of several lines could look like another hit
    head = Text(f"{rank:>2}  ", "dim").append(key, "bold").append(f"  {cited}", "cyan")
    _show(head.append(f"  {hit.score:.3f}", "green"), hit, full=full)


def show_stored(chunk: "StoredChunk", *, full: bool = False) -> None:
    """One chunk of a version on standard output: its ordinal, its place, its id, and its text."""
    from rich.text import Text

    head = Text(f"chunk {chunk.ordinal}", "bold").append(f"  {', '.join(_where(chunk.place))}", "cyan")
    _show(head.append(f"  id {chunk.chunk_id}", "dim"), chunk, full=full)


def _show(head: "Text", chunk: "Hit | StoredChunk", *, full: bool) -> None:
    out().print(head, soft_wrap=True)
    headings = chunk.metadata.get("headings")
    if isinstance(headings, list) and headings:
        print_line(f"    {' › '.join(map(str, headings))}")
    content = chunk.content.strip()
    print_line(indent(content, "    ") if full else shortened(content))
    print_line()


def shortened(content: str) -> str:
    """The beginning of a text, wrapped and indented."""
    shown = shorten(content, _SHOWN, placeholder=" …")
    return fill(shown, out().width, initial_indent="    ", subsequent_indent="    ")


def _where(place: "Place | None") -> list[str]:
    """The place as exactly as it is known: `page 3`, `line 12`, `characters 340–812`."""
    if place is None:
        return []
    parts = [f"page {place.page}"] if place.page is not None else []
    parts += [f"line {place.line}"] if place.line is not None else []
    parts += [f"characters {place.start}–{place.end}"] if place.start is not None else []
    return parts
