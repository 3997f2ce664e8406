"""Each protection, left out, is found by an interleaving: so the others would be found, too.

Two always run, held at the one statement where it shows; the rest are `-m soak`.
"""

from collections.abc import Sequence

import msgspec
import pytest

from chunkstore.statements import Statements
from chunkstore.versions import VERSIONS
from projections.beside import BESIDE
from tests.interleavings.gates import Point
from tests.interleavings.meetings import Meeting, broken_when_collected
from tests.interleavings.stages import staged
from tests.interleavings.test_interleavings import NAMED


class LeftOut(msgspec.Struct, frozen=True):
    """A line that some rule or lock stands on, what stands in its place, and who then harms whom."""

    name: str
    where: str | tuple[Statements, str]
    """A function of the schema, or a named statement."""
    line: str
    instead: str
    held: str
    at: str
    """The statement before which the first is held."""
    runs: str
    found: str
    """Part of what is found."""
    soak: bool = True


LEFT_OUT = (
    LeftOut(
        "a consumer does not hold its chunks",
        "complete",
        " ORDER BY chunk_id FOR KEY SHARE",
        " ORDER BY chunk_id",
        "complete a range",
        "commit",
        "erase",
        "embeddings_of_chunks",
        soak=False,
    ),
    LeftOut(
        "a consumer locks the partition first",
        "complete",
        "PERFORM lock_lease(_group, _partition, _lo, _epoch);",
        "PERFORM lock_lease(_group, _partition, _lo, _epoch); PERFORM lock_partition(_partition);",
        "complete a range",
        "complete: IF cardinality(_chunks) > 0",
        "erase",
        "deadlock detected",
        soak=False,
    ),
    LeftOut(
        "a switch does not lock its files",
        "activate",
        "PERFORM FROM files f WHERE f.file = ANY (_files) ORDER BY f.file FOR NO KEY UPDATE;",
        "",
        "project a commit",
        "commit",
        "erase",
        "active_rows",
    ),
    LeftOut(
        "a sweep does not lock its file",
        "sweep_segments",
        "PERFORM FROM files WHERE file = _file FOR NO KEY UPDATE;",
        "",
        "sweep",
        "sweep_segments: _garbage :=",
        "append in batches",
        "is not",
    ),
    LeftOut(
        "who gives a chunk up does not hold it",
        "dead_letter",
        "WHERE chunk_id = _chunk FOR UPDATE",
        "WHERE chunk_id = _chunk",
        "give a chunk up",
        "commit",
        "complete another range of the same chunks",
        "is not",
    ),
    LeftOut(
        "an erasure does not wait for who holds its chunks",
        "erase_file",
        "PERFORM FROM chunks WHERE chunk_id = ANY (_chunks) ORDER BY chunk_id FOR UPDATE;",
        "",
        "complete a range",
        "commit",
        "erase",
        "embeddings_of_chunks",
    ),
    LeftOut(
        "an append does not lock its file",
        "lock_file",
        "FOR NO KEY UPDATE;",
        ";",
        "append with expected_version",
        "INSERT INTO chunks",
        "append with expected_version",
        "is not",
    ),
    LeftOut(
        "a consumer does not lock the partition",
        "append_embedded",
        "PERFORM lock_partition(_partition);",
        "",
        "complete a range",
        "commit",
        "append to a new key",
        "dense_offsets",
    ),
    LeftOut(
        "a sweep does not hold the list of tables",
        "delete_chunks",
        "PERFORM FROM collection_models WHERE collection = _collection ORDER BY model FOR SHARE;",
        "",
        "rebuild",
        "CREATE TEMPORARY TABLE replayed",
        "sweep",
        "42P01",
    ),
    LeftOut(
        "a batch does not ask whether its version is open",
        (VERSIONS, "is_open"),
        "AND state = 'open'",
        "",
        "append in batches",
        "SELECT file FROM files WHERE file",
        "abandon overdue versions",
        "lock_open found it open",
    ),
    LeftOut(
        "a decision does not lock its file",
        (VERSIONS, "lock_known_file"),
        "FOR NO KEY UPDATE",
        "",
        "decide what goes",
        "commit",
        "roll back",
        "is not",
    ),
    LeftOut(
        "a swap does not lock the checkpoints",
        (BESIDE, "lock_checkpoints"),
        "FOR UPDATE",
        "",
        "rebuild",
        'INSERT INTO "active',
        "project a commit",
        "active_",
    ),
)


@pytest.mark.parametrize(
    "left_out",
    [pytest.param(one, id=one.name, marks=[pytest.mark.soak] if one.soak else []) for one in LEFT_OUT],
)
async def test_a_lock_that_is_left_out_is_found(
    dsn: str, left_out: LeftOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {}
    if isinstance(left_out.where, str):
        changes[left_out.where] = (left_out.line, left_out.instead)
    else:
        statements, name = left_out.where
        text = statements.text(name)
        assert text.count(left_out.line) == 1
        monkeypatch.setitem(statements._texts, name, text.replace(left_out.line, left_out.instead))

    def there(number: int, points: Sequence[Point]) -> Sequence[Point]:
        return [point for point in points if number == 0 and point.text.startswith(left_out.at)]

    async with staged(dsn, changes) as stage:
        met = await Meeting(stage, (NAMED[left_out.held], NAMED[left_out.runs])).run(there)
        assert met.meetings > 0
        found = met.faults or await broken_when_collected(stage)
    assert found
    assert left_out.found in str(found)
