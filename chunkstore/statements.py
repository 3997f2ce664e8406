"""Loads the named SQL statements of `sql/`, a file an idea.

In a file each statement follows a line `-- name: …` and a comment that says what it is for. The text
between is sent to the server as it stands, so what is read there can be pasted after `EXPLAIN`.
"""

import re
from importlib import resources
from typing import LiteralString, NamedTuple, cast

from psycopg import sql

_HEADER = re.compile(r"^-- name: (\w+)[ \t]*$", re.MULTILINE)


class Statements:
    """The statements of one `.sql` file, each an attribute: `LOG.read` is the bytes of `read`."""

    def __init__(self, idea: str, texts: dict[str, LiteralString]) -> None:
        self._idea = idea
        self._texts = texts

    def __getattr__(self, name: str) -> bytes:
        return self.text(name).encode()

    def text(self, name: str) -> LiteralString:
        """The statement's text. Raises AttributeError for a name that the file does not hold."""
        try:
            return self._texts[name]
        except KeyError:
            raise AttributeError(f"sql/{self._idea}.sql has no statement {name!r}") from None

    def names(self) -> list[str]:
        """The statements' names, in the file's order."""
        return list(self._texts)

    def with_tables(self, name: str, **tables: str) -> sql.Composed:
        """The statement with its `{table}` places filled by quoted identifiers."""
        return self.composed(name, **{place: sql.Identifier(table) for place, table in tables.items()})

    def composed(self, name: str, **parts: sql.Composable) -> sql.Composed:
        """The statement with its `{part}` places filled."""
        return sql.SQL(self.text(name)).format(**parts)


class _Parsed(NamedTuple):
    name: str
    text: LiteralString


def load(idea: str) -> Statements:
    """Reads `chunkstore/sql/<idea>.sql`."""
    source = resources.files("chunkstore").joinpath("sql", f"{idea}.sql").read_text(encoding="utf-8")
    return Statements(idea, dict(_parse(source)))


def _parse(source: str) -> list[_Parsed]:
    headers = list(_HEADER.finditer(source))
    ends = [header.start() for header in headers[1:]] + [len(source)]
    return [
        _Parsed(header[1], cast("LiteralString", source[header.end() : end].strip().rstrip(";")))
        for header, end in zip(headers, ends, strict=True)
    ]
