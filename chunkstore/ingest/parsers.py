"""Reads a file as a document: by what its content shows it to be, or else by its name.

A registry maps the end of a file's name to a format, so that further formats have a place. A file
that cannot be read raises UnreadableFile, with the reason; no other error comes from its content.
"""

from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import msgspec

from chunkstore.errors import FormatNotInstalled, MissingExtra, UnreadableFile
from chunkstore.ingest.document import Document
from chunkstore.ingest.formats.builtin import BUILTIN, PLAIN_TEXT
from chunkstore.ingest.formats.format import Format
from chunkstore.ingest.formats.notebook import is_notebook
from chunkstore.ingest.formats.sniffing import Sniffed, sniff

MAX_FILE_BYTES = 256 * 1024 * 1024
ENTRY_POINTS = "chunkstore.formats"
"""The group in which an installed package names its formats, each a Format."""

_FORMATS: dict[str, Format] = {}
_BY_NAME: dict[str, Format] = {}
_BUILTIN = frozenset(BUILTIN)
_INSTALLED: set[Format] = set()


def register(added: Format) -> None:
    """Reads files of such names as this format from now on; the last one registered wins."""
    _FORMATS[added.name] = added
    for name in added.names:
        _BY_NAME[name.lower()] = added


for _builtin in BUILTIN:
    register(_builtin)


def own_formats() -> list[Format]:
    """The formats that this process registered by itself: no other process knows them."""
    _load_installed()
    return [found for found in _FORMATS.values() if found not in _BUILTIN and found not in _INSTALLED]


def is_registered(path: Path) -> bool:
    """True where the file's name promises a format that is read here."""
    return _promised(path) is not None


def is_current(parser: str) -> bool:
    """True where `parser`, a `Document.parser` of some earlier run, is still what such a file is read by."""
    _load_installed()
    found = _FORMATS.get(parser.rpartition("/")[0])
    return found is not None and found.fingerprint == parser


def parse(path: Path) -> Document:
    """The file as a document; what nothing is known of is read as plain text. No text gives an empty one.

    Raises UnreadableFile where the file cannot be opened, is too large, damaged, encrypted or no text;
    FormatNotInstalled, one of these, where the library that reads it is missing.
    """
    content = _content(path)
    promised = _promised(path)
    if not content:
        return _empty(promised or PLAIN_TEXT)
    found = _format(promised, content)
    try:
        document = found.read(content)
    except (UnreadableFile, MemoryError):
        raise
    except (MissingExtra, ImportError) as error:
        raise FormatNotInstalled(
            f"{found.title or found.name}: what reads it is not installed: {error}"
        ) from error
    except Exception as error:
        raise UnreadableFile(_damaged(found, error)) from error
    _check_text(document.text)
    return msgspec.structs.replace(document, parser=found.fingerprint)


def _check_text(text: str) -> None:
    """Raises UnreadableFile for what no chunk can hold; a parser may find it written as an escape."""
    position = text.find("\0")
    if position >= 0:
        raise UnreadableFile(f"its text holds a NUL at character {position:,}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UnreadableFile(
            f"its text holds half of a surrogate pair at character {error.start:,}"
        ) from error


def _promised(path: Path) -> Format | None:
    _load_installed()
    return _BY_NAME.get(path.name.lower()) or _BY_NAME.get(path.suffix.lower())


@cache
def _load_installed() -> None:
    """Registers the formats of installed packages, once a process."""
    for entry in entry_points(group=ENTRY_POINTS):
        installed: Format = entry.load()
        register(installed)
        _INSTALLED.add(installed)


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise UnreadableFile("no such file" if not path.exists() else "not a regular file")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise UnreadableFile(f"{size:,} bytes are more than the {MAX_FILE_BYTES:,} that a file may have")
        return path.read_bytes()
    except OSError as error:
        raise UnreadableFile(error.strerror or type(error).__name__) from error


def _empty(promised: Format) -> Document:
    if not promised.is_text:
        raise UnreadableFile(f"empty: 0 bytes are no {promised.title or promised.name}")
    return Document("", parser=promised.fingerprint)


def _format(promised: Format | None, content: bytes) -> Format:
    """The format of the content. A format that somebody registered is taken at its word."""
    if promised is not None and promised not in _BUILTIN:
        return promised
    sniffed = sniff(content)
    if sniffed.refusal:
        raise UnreadableFile(sniffed.refusal)
    if sniffed.format and _believed(sniffed, promised, content):
        return _FORMATS[sniffed.format]
    if promised is None or not promised.is_text:
        return PLAIN_TEXT
    return promised


def _believed(sniffed: Sniffed, promised: Format | None, content: bytes) -> bool:
    """True where the content outweighs the name; source code that holds a page or a message stays code."""
    if promised is None or not promised.is_text or not _FORMATS[sniffed.format].is_text:
        return True
    return {
        "html": promised.name in {"text", "markdown", "csv", "json"},
        "notebook": promised.name in {"text", "json"} and is_notebook(content),
        "mail": promised.name == "text",
    }.get(sniffed.format, False)


def _damaged(found: Format, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "its elements nest too deep"
    reason = " ".join(str(error).split())[:200]
    return f"a damaged {found.title or found.name}: {type(error).__name__}{': ' if reason else ''}{reason}"
