"""A caller who holds a row in a transaction of its own, as a dump or a query with a lock would."""

from collections.abc import Generator
from typing import Any

from tests.model.protocol.postgres import COMMIT, KEY_SHARE, Session, Statement
from tests.model.protocol.rules import Rules


def hold(rules: Rules, chunk: str) -> Generator[Statement, Any, None]:
    """Holds a chunk for as long as it likes."""
    yield Statement(f"hold chunk {chunk}", lambda session: _hold(session, chunk))
    yield COMMIT


def _hold(session: Session, chunk: str) -> None:
    if chunk in session.rows("chunks"):
        session.lock("chunks", chunk, KEY_SHARE)
