"""The pool and its transactions (rule 1)."""

from chunkstore.database import Database


async def test_a_transaction_reads_committed_and_finds_the_schema(database: Database) -> None:
    async with database.transaction() as connection:
        cursor = await connection.execute("SELECT current_setting('transaction_isolation'), current_schema()")
        assert await cursor.fetchone() == ("read committed", database.schema)
