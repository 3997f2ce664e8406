"""What holds a lock for the length of a build holds no snapshot, or a concurrent build would wait for it."""

from chunkstore import rows
from chunkstore.database import Database
from projections.indexes import INDEXES, drop_snapshot


async def test_an_idle_transaction_that_guards_a_build_holds_no_snapshot(database: Database) -> None:
    async with database.transaction() as guard:
        assert await rows.fetch_value(guard, INDEXES.try_lock, {"index": "any", "table": "any"})
        await drop_snapshot(guard)
        async with database.connection() as other:
            held = await rows.fetch_value(
                other,
                "SELECT backend_xmin FROM pg_stat_activity WHERE pid = %(pid)s",
                {"pid": guard.info.backend_pid},
            )
    assert held is None
