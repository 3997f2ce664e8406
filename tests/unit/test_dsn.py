"""Connection strings: what is refused, and that a password is never shown."""

import traceback

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from chunkstore.dsn import Dsn
from chunkstore.errors import InvalidInput
from chunkstore.settings import read


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://user:s3cr3t@host:5432/store",
        "postgres://user:s3cr%40t@host/store",
        "postgresql://user@one:1,two:2/store?password=s3cr3t",
        "host=host user=user password='s3cr3t it\\'s' dbname=store",
        "postgresql:///store?host=/var/run&password=s3cr3t&sslpassword=als0",
    ],
)
def test_a_connection_string_shows_where_it_leads_and_no_password(text: str) -> None:
    dsn = Dsn(text)
    shown = f"{dsn} {dsn!r} {dsn.server} {dsn.user} {dsn.database} {read(text)!r}"
    assert "store" in shown
    assert not [secret for secret in ("s3cr", "als0") if secret in shown]
    given = conninfo_to_dict(text)
    assert {name: conninfo_to_dict(dsn.conninfo())[name] for name in given} == given


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://user:s3cr3t@more@host/store",
        "postgresql://user:s3cr3t/more@host/store",
        "postgresql://user:12/s3cr3t@host/store",
        "postgresql://user:s3cr%zz3t@host/store",
        "postgresql://user:s3cr3t%00@host/store",
        "postgresql://user:s3cr3t@host:port/store",
        "postgresql://user:s3cr3t?/more@host/store",
        "mysql://user:s3cr3t@host/store",
        "host=host password=my s3cr3t",
        "host=host password=my s3cr3t=1",
        "host=host password='s3cr3t",
        "s3cr3t",
        "host=host password=s3cr3t\0",
        "password=s3cr3t\ud800",
        "host=host port=s3cr3t",
    ],
)
def test_what_could_be_misread_is_refused_without_a_word_of_it(text: str) -> None:
    with pytest.raises(InvalidInput, match="dsn") as caught:
        read(text)
    error = caught.value
    said = "".join(traceback.format_exception(error, chain=True)) + repr(error) + repr(error.args)
    assert "s3cr" not in said.replace(repr(text), "")
    assert error.__context__ is None
    assert error.__cause__ is None


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_any_password_given_by_keyword_survives(password: str) -> None:
    quoted = password.replace("\\", "\\\\").replace("'", "\\'")
    dsn = Dsn(f"host=h password='{quoted}'")
    assert conninfo_to_dict(dsn.conninfo())["password"] == password


def test_what_the_string_says_beats_our_defaults() -> None:
    assert conninfo_to_dict(Dsn("connect_timeout=7").conninfo(connect_timeout=5))["connect_timeout"] == "7"
    assert conninfo_to_dict(Dsn("host=h").conninfo(connect_timeout=5))["connect_timeout"] == "5"


def test_a_password_is_scrubbed_from_what_others_say() -> None:
    dsn = Dsn("host=h user=u password='a b'")
    assert dsn.scrubbed("login of u with a b failed") == "login of u with ••• failed"
    assert dsn.is_shown_in("… a b …")
    assert not dsn.is_shown_in("a failed")


def test_settings_cannot_be_written_out_with_the_password_in_them() -> None:
    settings = read("host=h password=s3cr3t")
    with pytest.raises(TypeError):
        msgspec.json.encode(settings)


def test_a_traceback_with_locals_shows_a_refused_dsn_half_made() -> None:
    with pytest.raises(InvalidInput) as caught:
        Dsn("postgresql://me:se@cr@et@host/db")
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert any("Dsn(" in (frame.locals or {}).get("self", "") for frame in shown.stack)
