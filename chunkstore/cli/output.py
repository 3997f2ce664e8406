"""What the commands print: data on standard output, everything else on standard error.

Texts come from files and databases, so nothing in them is taken for markup or for a terminal's commands.
"""

import re
import sys
from collections.abc import AsyncIterable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_PIPED_WIDTH = 160
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_PASSWORD = re.compile(
    r"(postgres(?:ql)?://[^\s:/]*:)\S+(?=@)|(password\s*=\s*)('(?:\\.|[^'])*'?|\S+)", re.IGNORECASE
)


@cache
def out() -> "Console":
    """Standard output."""
    return _console(stderr=False)


@cache
def err() -> "Console":
    """Standard error."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> "Console":
    from rich.console import Console

    class _Console(Console):
        def on_broken_pipe(self) -> None:
            raise  # noqa: PLE0704 - it is called where the error is caught, and would end the process with 1

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPED_WIDTH
    return _Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


def clean(text: str) -> str:
    """The text with a � for every control character but line ends and tabs."""
    return _CONTROL.sub("�", text)


def without_passwords(text: str) -> str:
    """The text with ••• for what looks like the password of a connection string."""
    return _PASSWORD.sub(lambda found: (found[1] or found[2]) + "•••", text)


def say(text: str) -> None:
    """A line for a person, on standard error."""
    err().print(clean(text), soft_wrap=True)


def complain(text: str) -> None:
    """The one line of an error, on standard error."""
    # Not by rich, which takes long to import for a line.
    line = " ".join(clean(without_passwords(text)).split())
    sys.stderr.write(f"chunkstore: {line}\n")


def print_json(value: Any) -> None:
    """The value as JSON, on standard output."""
    import msgspec

    encoded = msgspec.json.format(msgspec.json.encode(value), indent=2)
    sys.stdout.write(encoded.decode() + "\n")


async def print_json_rows(rows: AsyncIterable[Any]) -> None:
    """The rows as one JSON array, a line each as it comes, on standard output."""
    import msgspec

    separator = "["
    async for row in rows:
        sys.stdout.write(f"{separator}\n{msgspec.json.encode(row).decode()}")
        separator = ","
    sys.stdout.write("[]\n" if separator == "[" else "\n]\n")


def print_line(text: str = "") -> None:
    """A line of data on standard output."""
    out().print(clean(text), soft_wrap=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on standard output; numbers to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    listed = [list(row) for row in rows]
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        numeric = bool(listed) and all(isinstance(row[i], int | float | None) for row in listed)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in listed:
        table.add_row(*(Text(_cell(value)) for value in row))
    out().print(table)


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Names and values below each other, on standard output; numbers to the right."""
    from rich.table import Table
    from rich.text import Text

    listed = list(pairs)
    numeric = all(isinstance(value, int | float | None) for _, value in listed)
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(justify="right" if numeric else "left", overflow="fold")
    for name, value in listed:
        grid.add_row(Text(name), Text(_cell(value)))
    out().print(grid)


@contextmanager
def working(text: str) -> Iterator[None]:
    """Shows that something takes its time, where standard error is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    with err().status(clean(text)):
        yield


def progress(*, counted: bool = True) -> "Progress":
    """A progress display on standard error, where that is a terminal; `counted`: towards a known end."""
    from rich import progress as parts

    bar = (parts.BarColumn(), parts.MofNCompleteColumn()) if counted else ()
    return parts.Progress(
        parts.SpinnerColumn(),
        *bar,
        parts.TimeElapsedColumn(),
        parts.TextColumn("{task.description}", markup=False),
        console=err(),
        disable=not err().is_terminal,
        transient=True,
    )


def size(count: int) -> str:
    """Bytes as a person reads them: `1.5 MB`."""
    amount = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1_000:
            return f"{amount:,.0f} {unit}" if unit == "bytes" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1_000
    return f"{amount:,.1f} TB"


def age(moment: datetime | None) -> str:
    """How long ago, as a person reads it: `5 min`."""
    if moment is None:
        return ""
    seconds = max(0.0, (datetime.now(UTC) - moment).total_seconds())
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else ""
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.3f}"
        case _:
            return clean(str(value))
