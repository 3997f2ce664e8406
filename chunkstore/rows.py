"""Reads rows as values: a struct a row, so that no tuple of unnamed columns travels between modules."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, LiteralString, TypeVar

from psycopg import AsyncConnection, sql
from psycopg.rows import args_row, kwargs_row, scalar_row

Statement = bytes | sql.Composed | LiteralString
Params = Mapping[str, Any]
T = TypeVar("T")


async def fetch_all(
    conn: AsyncConnection[Any], statement: Statement, params: Params | None = None, *, row: Callable[..., T]
) -> list[T]:
    """Every row, each made a `row` from its columns by name."""
    async with conn.cursor(binary=True, row_factory=kwargs_row(row)) as cursor:
        await cursor.execute(statement, params)
        return await cursor.fetchall()


async def fetch_all_by_position(
    conn: AsyncConnection[Any], statement: Statement, params: Params | None = None, *, row: Callable[..., T]
) -> list[T]:
    """Every row, each made a `row` from its columns in order: for thousands of rows, where names cost."""
    async with conn.cursor(binary=True, row_factory=args_row(row)) as cursor:
        await cursor.execute(statement, params)
        return await cursor.fetchall()


async def fetch_one(
    conn: AsyncConnection[Any], statement: Statement, params: Params | None = None, *, row: Callable[..., T]
) -> T | None:
    """The first row, or None."""
    async with conn.cursor(binary=True, row_factory=kwargs_row(row)) as cursor:
        await cursor.execute(statement, params)
        return await cursor.fetchone()


async def fetch_values(
    conn: AsyncConnection[Any], statement: Statement, params: Params | None = None
) -> list[Any]:
    """The first column of every row."""
    async with conn.cursor(binary=True, row_factory=scalar_row) as cursor:
        await cursor.execute(statement, params)
        return await cursor.fetchall()


async def fetch_value(conn: AsyncConnection[Any], statement: Statement, params: Params | None = None) -> Any:
    """The first column of the first row, or None where there is no row."""
    async with conn.cursor(binary=True, row_factory=scalar_row) as cursor:
        await cursor.execute(statement, params)
        return await cursor.fetchone()


async def insert_each(
    conn: AsyncConnection[Any], statement: Statement, params: Sequence[Params]
) -> list[Any]:
    """What a statement that inserts one row returns of each, in their order; in one round trip."""
    if len(params) == 1:  # without the pipeline that executemany makes
        return [await fetch_value(conn, statement, params[0])]
    async with conn.cursor(binary=True, row_factory=scalar_row) as cursor:
        await cursor.executemany(statement, params, returning=True)
        return [await each.fetchone() async for each in cursor.results()]
