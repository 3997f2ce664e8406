"""The SQL files: every statement has a name, a sentence and a text that can be sent as it stands."""

import re
from pathlib import Path

import pytest
from psycopg import sql

from chunkstore import statements

FILES = sorted(path.stem for path in (Path(statements.__file__).parent / "sql").glob("*.sql"))
STATEMENTS = [(idea, name) for idea in FILES for name in statements.load(idea).names()]


def test_a_file_of_statements_is_read_by_name() -> None:
    log = statements.load("log")
    assert "read" in log.names()
    assert log.read == log.text("read").encode()


def test_an_unknown_name_is_an_error_that_names_the_file() -> None:
    with pytest.raises(AttributeError, match=r"sql/log\.sql has no statement 'nothing'"):
        _ = statements.load("log").nothing


def test_tables_are_filled_in_as_quoted_identifiers() -> None:
    made = statements.Statements("made", {"one": "SELECT FROM {table} WHERE a = %(a)s"})
    composed = made.with_tables("one", table='odd "name"')
    assert isinstance(composed, sql.Composed)
    assert composed.as_string() == 'SELECT FROM "odd ""name""" WHERE a = %(a)s'


@pytest.mark.parametrize("idea", FILES)
def test_no_two_statements_of_a_file_share_a_name(idea: str) -> None:
    names = statements.load(idea).names()
    source = (Path(statements.__file__).parent / "sql" / f"{idea}.sql").read_text()
    assert names
    assert len(names) == source.count("-- name:")


@pytest.mark.parametrize(("idea", "name"), STATEMENTS)
def test_a_statement_says_what_it_is_for_and_is_only_one(idea: str, name: str) -> None:
    text = statements.load(idea).text(name)
    assert re.match(r"-- \S", text) or "\n" not in text, "a comment stands before what takes more than a line"
    code = re.sub(r"--[^\n]*|'[^']*'", "", text)
    assert code.strip()
    assert ";" not in code.strip().removesuffix(";")
    assert not re.findall(r"%(?!\([a-z_]+\)[sbt]|%)", code), "parameters are named"
