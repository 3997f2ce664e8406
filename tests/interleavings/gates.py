"""Gates before every statement of one side: those that it sends, and those inside the schema's functions.

Who shuts a gate holds the side just there, with all that it has locked. Before a statement that is sent the
gate is an event of the client; inside a function it is an advisory lock named by the run and the statement.
"""

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.pq import TransactionStatus

from chunkstore.answers import Answering

INNER = 1000
"""Statement k that a side sends has the number k * INNER; those of the functions that it calls follow."""

_SEARCH = "WITH nearest"
_STATEMENT = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|EXECUTE|PERFORM)\b")

_HALT = """
CREATE FUNCTION halt(_site integer) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    _at text[] := string_to_array(nullif(current_setting('interleavings.at', true), ''), ' ');
    _run integer := _at[1];
    _number integer := _at[2]::integer + 1;
BEGIN
    IF _run IS NOT NULL THEN
        PERFORM set_config('interleavings.at', format('%s %s', _run, _number), false);
        RAISE NOTICE 'gate % % %', _run, _number, _site;
        PERFORM pg_advisory_lock_shared(_run, _number);
        PERFORM pg_advisory_unlock_shared(_run, _number);
    END IF;
    RETURN true;
END
$$"""

_FUNCTIONS = """
SELECT p.proname, pg_get_functiondef(p.oid)
FROM pg_proc p
JOIN pg_language l ON l.oid = p.prolang
WHERE p.pronamespace = current_schema()::regnamespace
  AND l.lanname = 'plpgsql'
  AND p.provolatile = 'v'
  AND p.prorettype <> 'trigger'::regtype
  AND p.proname NOT IN ('halt', 'require_read_committed')
ORDER BY p.proname"""


class Point(NamedTuple):
    """A statement of the side that counts."""

    number: int
    text: str


class Watch:
    """What is known of one side's connections: where it is, who it is to Postgres, what it was refused."""

    def __init__(self, gates: "Gates") -> None:
        self._gates = gates
        self.pids: list[int] = []
        self.begin()
        self.counts = False

    def begin(self, *, held_at: int | None = None) -> None:
        """Forgets what was; from here on statements are counted from the first."""
        self.refused: list[str] = []
        self.passed: list[Point] = []
        self.reached = asyncio.Event()
        self.counts = True
        self.run = secrets.randbelow(2**31)
        self._sent = 0
        self._held_at = held_at
        self._gate = asyncio.Event()

    def end(self) -> None:
        """Counts no more."""
        self.counts = False

    async def shut(self) -> None:
        """Shuts the gate at which this side is to be held."""
        if self._held_at is not None and self._held_at % INNER:
            await self._gates.shut(self.run, self._held_at)

    async def open(self) -> None:
        """Lets this side go on."""
        self._gate.set()
        await self._gates.open()

    async def configure(self, connection: AsyncConnection[Any]) -> None:
        """Makes a new connection known; deadlocks are to be found at once."""
        connection.add_notice_handler(self._noticed)
        await connection.execute("SET deadlock_timeout = '20ms'")
        self.pids.append(connection.info.backend_pid)

    def connections(self) -> type[AsyncConnection[Any]]:
        """The class of this side's connections."""
        watch = self

        class Watched(Answering):
            async def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
                text = _text_of(gen)
                if watch.counts_on(self, text):
                    await watch.pass_through(text, self._count)
                try:
                    return await super().wait(gen, *args, **kwargs)
                except psycopg.Error as error:
                    watch.refused.append(error.sqlstate or type(error).__name__)
                    raise

            async def _count(self, at: str) -> None:
                command = f"SELECT set_config('interleavings.at', '{at}', false)"
                await super().wait(self._exec_command(command.encode()))

        return Watched

    def counts_on(self, connection: AsyncConnection[Any], text: str) -> bool:
        """Whether a statement is one of the side's: sent within a transaction, or the one of a search."""
        counts = connection.pgconn.transaction_status == TransactionStatus.INTRANS or text.startswith(_SEARCH)
        return self.counts and counts and connection.info.backend_pid in self.pids

    async def pass_through(self, text: str, count: Callable[[str], Awaitable[None]]) -> None:
        """Passes through the gate before a statement that is sent, or stays there while it is shut."""
        self._sent += 1
        number = self._sent * INNER
        self._pass(Point(number, text))
        if number == self._held_at:
            await self._gate.wait()
        if self._held_at is None or number == self._held_at // INNER * INNER:
            await count(f"{self.run} {number}")

    def _noticed(self, notice: psycopg.errors.Diagnostic) -> None:
        found = re.fullmatch(r"gate (\d+) (\d+) (\d+)", notice.message_primary or "")
        if found and int(found[1]) == self.run:
            self._pass(Point(int(found[2]), self._gates.sites[int(found[3])]))

    def _pass(self, point: Point) -> None:
        self.passed.append(point)
        if point.number == self._held_at:
            self.reached.set()


class Gates:
    """The gates inside the functions of one schema, and the connection that shuts them."""

    def __init__(self, keeper: AsyncConnection[Any]) -> None:
        self._keeper = keeper
        self.sites: list[str] = []

    async def build(self, changes: Mapping[str, tuple[str, str]]) -> None:
        """Puts a gate before every statement of the schema's functions that reads, writes or locks.

        `changes` names functions that are made otherwise first: a line of each, and what stands in its place.
        """
        await self._keeper.execute(_HALT)
        found = await (await self._keeper.execute(_FUNCTIONS)).fetchall()
        for name, definition in found:
            line, instead = changes.get(name, ("", ""))
            assert not line or definition.count(line) == 1, f"{name} does not hold once: {line}"
            changed = definition.replace(line, instead) if line else definition
            await self._keeper.execute(self._gated(name, changed).encode())

    async def shut(self, run: int, number: int) -> None:
        await self._keeper.execute("SELECT pg_advisory_lock(%s, %s)", [run, number])

    async def open(self) -> None:
        await self._keeper.execute("SELECT pg_advisory_unlock_all()")

    async def hold_up(self, held: list[int], others: list[int]) -> bool:
        """Whether one of the others waits for what the held side has locked."""
        cursor = await self._keeper.execute(
            "SELECT coalesce(bool_or(pg_blocking_pids(pid) && %s::integer[]), false)"
            " FROM unnest(%s::integer[]) AS pid",
            [held, others],
        )
        row = await cursor.fetchone()
        assert row is not None
        return row[0]

    def _gated(self, function: str, definition: str) -> str:
        head, begun, body = definition.partition("\nBEGIN\n")
        assert begun, f"{function} has no body"
        lines = body.split("\n")
        last = max(number for number, line in enumerate(lines) if line.rstrip(";") == "END")
        gated = self._gate(function, lines)
        for number, line in enumerate(lines[:last]):
            gated.append(line)
            if _ends(line):
                gated += self._gate(function, lines[number + 1 : last])
        return head + begun + "\n".join(gated + lines[last:])

    def _gate(self, function: str, lines: Sequence[str]) -> list[str]:
        """A gate before the statement that these lines begin with, if it does anything in the database."""
        ends = next((number for number, line in enumerate(lines) if _ends(line)), -1)
        code = [line.strip() for line in lines[: ends + 1] if not line.lstrip().startswith("--")]
        statement = " ".join(code)
        if not _STATEMENT.search(statement) or "require_read_committed" in statement:
            return []
        self.sites.append(f"{function}: {_shortened(statement)}")
        return [f"IF halt({len(self.sites) - 1}) THEN END IF;"]


def _ends(line: str) -> bool:
    return line.rstrip().endswith(";") and not line.lstrip().startswith("--")


def _text_of(gen: Any) -> str:
    """The statement that a generator of psycopg's is about to send."""
    query = gen.gi_frame.f_locals.get("query", gen.gi_code.co_name.removeprefix("_").removesuffix("_gen"))
    if isinstance(query, sql.Composable):
        query = query.as_string()
    return _shortened(query.decode() if isinstance(query, bytes) else str(query))


def _shortened(text: str) -> str:
    flat = " ".join(line.strip() for line in text.splitlines() if not line.lstrip().startswith("--"))
    flat = " ".join(flat.split())
    return flat if len(flat) <= 90 else f"{flat[:87]}..."
