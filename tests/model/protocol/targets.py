"""Rolling back and pinning (rules 8, 9 and 19)."""

from collections.abc import Generator
from typing import Any

from tests.model.protocol import files, log
from tests.model.protocol.manifests import Stored, log_version, read_state
from tests.model.protocol.postgres import ABORT, COMMIT_AT_ONCE, Session, Statement
from tests.model.protocol.rules import Rules
from tests.model.protocol.schema import Event

Steps = Generator[Statement, Any, Any]


def roll_back(rules: Rules, key: str, to: int) -> Steps:
    """Makes an earlier version the target and logs what it lacks (rules 8 and 9)."""
    file = yield files.lock_by_key(key)
    if file is None:
        yield ABORT
        return
    state = yield read_state(file, None)
    segments, partition, known = yield Statement(
        f"read version {to}", lambda session: _committed(session, file, to), quiet=True
    )
    if not known or state.target == to:
        yield ABORT
        return
    yield Statement(
        f"make version {to} the target", lambda session: _set_target(session, file, to), quiet=True
    )
    stored = Stored(segments, tuple(sorted(set(segments))))
    yield from log_version(
        rules, file, partition, to, state.models, stored, segments,
        [Event("target_changed", 1, file, to, previous=state.target)], look_up=rules.keep("8 rollback"),
    )  # fmt: skip
    yield COMMIT_AT_ONCE


def _committed(session: Session, file: str, version: int) -> tuple[tuple[str, ...], int, bool]:
    row = session.get("versions", (file, version))
    known = row is not None and row.state == "committed"
    return row.segments if row is not None and known else (), log.partition_of(session, file), known


def _set_target(session: Session, file: str, to: int) -> None:
    session.update("files", file, session.get("files", file)._replace(target=to))


def pin(rules: Rules, key: str, version: int) -> Steps:
    """Keeps a version against the retention."""
    file = yield files.lock_by_key(key)
    if file is None:
        yield ABORT
        return
    _, partition, known = yield Statement(
        f"read version {version}", lambda session: _committed(session, file, version), quiet=True
    )
    if not known:
        yield ABORT
        return
    yield Statement(f"pin version {version}", lambda session: _pin(session, file, version), quiet=True)
    yield from log.append(rules, partition, [Event("pinned", 1, file, version)])
    yield COMMIT_AT_ONCE


def _pin(session: Session, file: str, version: int) -> None:
    session.update(
        "versions", (file, version), session.get("versions", (file, version))._replace(pinned=True)
    )
