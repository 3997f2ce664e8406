"""Leases of ranges: held by epoch, halved, renewed, given back (rule 11)."""

from typing import NamedTuple

from tests.model.protocol.postgres import UPDATE, Session
from tests.model.protocol.rules import Rules
from tests.model.protocol.schema import Done, Lease


class Held(NamedTuple):
    """A lease as its holder remembers it."""

    model: str
    partition: int
    lo: int
    hi: int
    epoch: int
    attempts: int

    @property
    def key(self) -> tuple[str, int, int]:
        """The key of its row."""
        return self.model, self.partition, self.lo

    @property
    def is_single(self) -> bool:
        """Whether the range is of one chunk."""
        return self.hi - self.lo == 1


class Owed(NamedTuple):
    """A chunk that needs an embedding, with a vector that can be copied and the chunk that has it."""

    chunk: str
    text: str
    vector: str | None
    source: str | None


def halve(rules: Rules, session: Session, key: tuple[str, int, int]) -> None:
    """Both halves get the parent's epoch plus one (rule 11)."""
    model, partition, lo = key
    lease: Lease = session.get("leases", key)
    middle = (lo + lease.hi) // 2
    epoch = lease.epoch + (1 if rules.keep("11 halves") else 0)
    session.update("leases", key, Lease(middle, epoch, expired=True))
    session.insert("leases", (model, partition, middle), Lease(lease.hi, epoch, expired=True))


def lock_lease(session: Session, held: Held) -> bool:
    """Locks a lease that is still held under the epoch; a zombie is refused here (invariant 8)."""
    lease = session.get("leases", held.key)
    if lease is None or lease.epoch != held.epoch or lease.owner is None:
        return False
    session.lock("leases", held.key, UPDATE)
    return True


def mark_done(session: Session, me: str, held: Held) -> None:
    session.insert_if_absent("done", held.key, Done(me, held.epoch, held.hi))


def renew_lease(session: Session, held: Held) -> bool:
    if not lock_lease(session, held):
        return False
    session.update("leases", held.key, session.get("leases", held.key)._replace(expired=False))
    return True


def count_failure(session: Session, held: Held) -> bool:
    if not lock_lease(session, held):
        return False
    lease: Lease = session.get("leases", held.key)
    session.update("leases", held.key, lease._replace(attempts=lease.attempts + 1, owner=None, expired=True))
    return True
