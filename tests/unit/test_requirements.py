"""What is too old to hold a store."""

import msgspec
import pytest

from chunkstore.errors import SchemaNotMigrated, UnsupportedServer
from chunkstore.requirements import Server

GOOD = Server(
    process=1,
    version=150_000,
    encoding="UTF8",
    vector="0.7.0",
    vector_schema="public",
    vector_type=16385,
    vector_available="0.8.1",
    has_migrations=True,
    incarnation="1/1/1/1",
)


def test_the_oldest_supported_server_and_extension_will_do() -> None:
    GOOD.check()
    assert GOOD.require_vector() == ("public", 16385)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 140_012}, "Postgres 14; 15 is the oldest"),
        ({"encoding": "SQL_ASCII"}, "SQL_ASCII"),
        ({"vector": "0.6.2"}, r"0\.6\.2.*0\.7\.0 is the oldest"),
        ({"vector": None, "vector_available": "0.5.1"}, r"0\.5\.1"),
        ({"vector": None, "vector_available": None}, "no pgvector"),
    ],
)
def test_what_no_migration_can_mend_is_refused_with_what_to_do(change: dict[str, object], said: str) -> None:
    with pytest.raises(UnsupportedServer, match=said):
        msgspec.structs.replace(GOOD, **change).check()


def test_an_extension_that_is_only_missing_is_migrates_work() -> None:
    server = msgspec.structs.replace(GOOD, vector=None, vector_schema=None)
    server.check()
    with pytest.raises(SchemaNotMigrated):
        server.require_vector()
