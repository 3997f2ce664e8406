"""Reads a file as text: decodes it, and says what kind of text it is.

A registry maps the end of a file's name to a parser, so that further formats have a place. A file
that is no text raises UnreadableFile, with the reason.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from chunkstore.errors import UnreadableFile
from chunkstore.ingest.decoding import decoded
from chunkstore.ingest.document import Document, Kind

MAX_FILE_BYTES = 256 * 1024 * 1024

Parser = Callable[[bytes], Document]
"""Makes a document of a file's bytes. Raises UnreadableFile."""

_PARSERS: dict[str, Parser] = {}


def register(parser: Parser, *names: str) -> None:
    """Gives files with such a name, or such an end of it (`.rst`), to `parser`; the last one wins."""
    for name in names:
        _PARSERS[name.lower()] = parser


def is_registered(path: Path) -> bool:
    """True where the file's name promises a format that is read here."""
    return path.name.lower() in _PARSERS or path.suffix.lower() in _PARSERS


def parse(path: Path) -> Document:
    """The file as a document; one with an unknown name is read as plain text.

    Raises UnreadableFile where the file cannot be opened, is too large, or is no text.
    """
    parser = _PARSERS.get(path.name.lower()) or _PARSERS.get(path.suffix.lower()) or _PLAIN_TEXT
    return parser(_content(path))


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


_PLAIN_TEXT: Parser = partial(_text, kind="text")

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

register(
    _PLAIN_TEXT, ".txt", ".text", ".rst", ".adoc", ".log", ".org", ".tex", "readme", "license", "copying"
)
register(partial(_text, kind="markdown"), ".md", ".markdown", ".mdown")
for _language, _names in _LANGUAGES.items():
    register(partial(_text, kind="code", language=_language), *_names.split())
