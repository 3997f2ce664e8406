"""Reads a file as text: decodes it, and says what kind of text it is.

A registry maps the end of a file's name to a parser, so that further formats have a place. A file
that is no text raises UnreadableFile, with the reason.
"""

from functools import partial
from pathlib import Path

import msgspec

from chunkstore.errors import UnreadableFile
from chunkstore.ingest.decoding import decoded
from chunkstore.ingest.document import Document, Kind
from chunkstore.ingest.formats.format import Format

MAX_FILE_BYTES = 256 * 1024 * 1024

_FORMATS: dict[str, Format] = {}
_BY_NAME: dict[str, Format] = {}


def register(added: Format) -> None:
    """Reads files of such names as this format from now on; the last one registered wins."""
    _FORMATS[added.name] = added
    for name in added.names:
        _BY_NAME[name.lower()] = added


def formats() -> tuple[Format, ...]:
    """Every format that is read here, those registered last at the end."""
    return tuple(_FORMATS.values())


def is_registered(path: Path) -> bool:
    """True where the file's name promises a format that is read here."""
    return path.name.lower() in _BY_NAME or path.suffix.lower() in _BY_NAME


def is_current(parser: str) -> bool:
    """True where `parser`, a `Document.parser` of some earlier run, is still what such a file is read by."""
    found = _FORMATS.get(parser.rpartition("/")[0])
    return found is not None and found.fingerprint == parser


def parse(path: Path) -> Document:
    """The file as a document; one with an unknown name is read as plain text.

    Raises UnreadableFile where the file cannot be opened, is too large, or is no text.
    """
    found = _BY_NAME.get(path.name.lower()) or _BY_NAME.get(path.suffix.lower()) or _PLAIN_TEXT
    return msgspec.structs.replace(found.read(_content(path)), parser=found.fingerprint)


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


def _text(content: bytes, kind: Kind, language: str | None = None) -> Document:
    return Document(decoded(content), kind, language)


_PLAIN_TEXT = Format(
    name="text",
    read=partial(_text, kind="text"),
    names=(".txt", ".text", ".rst", ".adoc", ".log", ".org", ".tex", "readme", "license", "copying"),
)

_LANGUAGES = {
    "bash": ".bash .sh .zsh",
    "c": ".c .h",
    "c++": ".cc .cpp .cxx .hh .hpp",
    "c#": ".cs",
    "css": ".css .scss",
    "dockerfile": "dockerfile",
    "elixir": ".ex .exs",
    "erlang": ".erl",
    "go": ".go",
    "haskell": ".hs",
    "java": ".java",
    "javascript": ".cjs .js .jsx .mjs",
    "json": ".json",
    "kotlin": ".kt",
    "lua": ".lua",
    "make": ".mk makefile",
    "ocaml": ".ml",
    "perl": ".pl .pm",
    "php": ".php",
    "python": ".py .pyi",
    "r": ".r",
    "ruby": ".rb",
    "rust": ".rs",
    "scala": ".scala",
    "sql": ".sql",
    "swift": ".swift",
    "toml": ".toml",
    "typescript": ".ts .tsx",
    "yaml": ".yaml .yml",
    "zig": ".zig",
}

register(_PLAIN_TEXT)
register(Format(name="markdown", read=partial(_text, kind="markdown"), names=(".md", ".markdown", ".mdown")))
for _language, _names in _LANGUAGES.items():
    register(
        Format(
            name=f"code-{_language}",
            read=partial(_text, kind="code", language=_language),
            names=tuple(_names.split()),
        )
    )
