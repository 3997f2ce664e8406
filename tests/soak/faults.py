"""A fault a second, of every kind, drawn by dice from a seed: each strikes, lasts, and is over."""

import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import psutil
import psycopg
from psycopg import sql

from chunkstore.embedded import EmbeddedServer
from tests.faults import injected
from tests.faults.processes import LEASE_SECONDS, Where
from tests.faults.proxy import Proxy, To
from tests.faults.siege import WORKER
from tests.soak import moods
from tests.soak.roles import MOOD
from tests.soak.tending import ROLES, Tended, Tender

_BACKEND = """
SELECT {}(pid)
FROM pg_stat_activity
WHERE backend_type = 'client backend'
  AND pid <> pg_backend_pid()
ORDER BY state = 'active' DESC, random()
LIMIT 1
"""

_HEAL = """
ALTER ROLE {} RESET ALL;
DROP FUNCTION IF EXISTS {}.raise_injected CASCADE;
"""

Fault = Callable[[], Awaitable[object]]


class Faults:
    """What strikes the processes, the network, the server and the models of one soak."""

    def __init__(self, seed: int, tender: Tender, where: Where, proxy: Proxy) -> None:
        self.struck: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._dice = random.Random(seed)
        self._tender = tender
        self._where = where
        self._proxy = proxy
        self._server = EmbeddedServer(where.data)
        self._dsn = self._server.dsn.conninfo()
        self._on: set[str] = set()
        self._kinds: list[tuple[float, str, str, Fault]] = [
            *((2, f"kill -9: {role}", "", partial(self._kill, role)) for role in ROLES),
            *((1, f"stopped past its lease: {role}", "", partial(self._freeze, role)) for role in ROLES),
            *((0.7, f"SIGTERM: {role}", "", partial(self._terminate, role)) for role in ROLES),
            (4, "server: a session terminated", "", partial(self._backend, "pg_terminate_backend")),
            (2, "server: a statement cancelled", "", partial(self._backend, "pg_cancel_backend")),
            (1, "server: stopped in immediate mode", "server", partial(self._down, signal.SIGQUIT)),
            (0.5, "server: kill -9", "server", partial(self._down, signal.SIGKILL)),
            (0.7, "server: out of connections", "server", self._for(2, self._exhausted)),
            (1, "server: lock_timeout", "lock_timeout", self._for(2, self._set("lock_timeout"))),
            (
                1,
                "server: statement_timeout",
                "statement_timeout",
                self._for(2, self._set("statement_timeout")),
            ),
            (1, "server: serialization failures", "raised", self._for(2, self._raised(at_commit=False))),
            (1, "server: they come at the commit", "raised", self._for(2, self._raised(at_commit=True))),
            (1, "server: hints lost", "hints", self._for(2, partial(injected.hints_lost, self._dsn))),
            (2, "network: cut", "network", self._cut),
            (1, "network: refused", "network", self._for(2, partial(injected.refused, proxy))),
            (
                1,
                "network: nothing to the server",
                "network",
                self._for(3, partial(injected.frozen, proxy, To.SERVER)),
            ),
            (
                1,
                "network: nothing to the clients",
                "network",
                self._for(3, partial(injected.frozen, proxy, To.CLIENT)),
            ),
            (
                1,
                "network: frozen for ever",
                "network",
                self._for(3, partial(injected.frozen_for_ever, proxy, *To)),
            ),
            (1, "network: packets vanish", "network", self._for(3, partial(injected.vanished, proxy))),
            (2, "network: answers to commits lost", "network", self._lose_answers),
            *((0.6, f"model: {mood}", "model", partial(self._mood, mood)) for mood in moods.MOODS),
        ]

    async def rage(self, seconds: int) -> None:
        """Strikes once a second; returns when the last fault is over and everything is as it was."""
        async with anyio.create_task_group() as tasks:
            for _ in range(seconds):
                tasks.start_soon(self._strike, *self._drawn())
                await anyio.sleep(1)  # the pace of the faults, not a wait for something
        self._proxy.heal()
        moods.put(self._mood_file, None)
        await self._heal()

    def _drawn(self) -> tuple[str, str, Fault]:
        possible = [kind for kind in self._kinds if kind[2] not in self._on]
        ((_, name, excludes, fault),) = self._dice.choices(possible, [kind[0] for kind in possible])
        return name, excludes, fault

    async def _strike(self, name: str, excludes: str, fault: Fault) -> None:
        if excludes:
            self._on.add(excludes)
        try:
            struck = await fault()
        except* (psycopg.Error, OSError, psutil.Error):  # one by one, or in a group of a fault's tasks
            struck = False  # the server is away: nothing was struck, or it ended the fault before its time
            await self._heal()
        finally:
            self._on.discard(excludes)
        self.struck[name if struck is not False else "(none: its victim was away)"] += 1

    # --- processes ------------------------------------------------------------------------------

    def _victim(self, role: str, *, may_die: bool) -> Tended | None:
        victims = [
            process
            for process in self._tender.of(role)
            if not process.in_hand and process.running.is_alive() and not (may_die and process.spared)
        ]
        return self._dice.choice(victims) if victims else None

    async def _kill(self, role: str) -> bool:
        victim = self._victim(role, may_die=True)
        if victim is None:
            return False
        victim.end()
        victim.restart()
        return True

    async def _freeze(self, role: str) -> bool:
        victim = self._victim(role, may_die=False)
        if victim is None:
            return False
        victim.in_hand = True
        victim.signal(signal.SIGSTOP)
        await anyio.sleep(LEASE_SECONDS * self._dice.uniform(1.1, 2.5))
        victim.signal(signal.SIGCONT)
        victim.in_hand = False
        return True

    async def _terminate(self, role: str) -> bool:
        victim = self._victim(role, may_die=True)
        if victim is None:
            return False
        victim.in_hand = True
        try:
            await victim.terminate()
            code = await victim.ended()
            if code is None:
                self.wrong.append(f"{victim.name} at SIGTERM: {await victim.hangs()}")
            elif code != 0:
                self._tender.ended[f"{role} at SIGTERM: {victim.ended_with}"] += 1
        finally:
            victim.end()
            victim.restart()
            victim.in_hand = False
        return True

    # --- the server and the network -------------------------------------------------------------

    def _for(
        self, seconds: float, fault: Callable[[], AbstractAsyncContextManager[object]]
    ) -> Callable[[], Awaitable[None]]:
        async def strike() -> None:
            async with fault():
                await anyio.sleep(seconds)  # how long it goes on

        return strike

    def _exhausted(self) -> AbstractAsyncContextManager[None]:
        return injected.connections_exhausted(self._dsn, WORKER)

    def _set(self, parameter: str) -> Callable[[], AbstractAsyncContextManager[None]]:
        return partial(injected.set_for, self._dsn, WORKER, parameter, "20ms")

    def _raised(self, *, at_commit: bool) -> Callable[[], AbstractAsyncContextManager[None]]:
        return partial(injected.raised, self._dsn, self._where.schema, WORKER, "40001", at_commit=at_commit)

    async def _backend(self, function: str) -> bool:
        async with await injected.connected(self._dsn) as conn:
            return await (await conn.execute(_BACKEND.format(function).encode())).fetchone() is not None

    async def _down(self, number: signal.Signals) -> None:
        """Whoever needs the server, and is on its machine, starts it again."""
        os.kill(int((self._where.data / "postgres/postmaster.pid").read_text().split()[0]), number)

    async def _cut(self) -> bool:
        return self._proxy.cut() > 0

    async def _lose_answers(self) -> bool:
        before = self._proxy.answers_lost
        self._proxy.lose_answers(every=3)
        await anyio.sleep(2)
        self._proxy.heal()
        return self._proxy.answers_lost > before

    async def _heal(self) -> None:
        """Takes what was injected into the server out again, as soon as it is there."""
        healing = sql.SQL(_HEAL).format(sql.Identifier(WORKER), sql.Identifier(self._where.schema))
        while True:
            try:
                await anyio.to_thread.run_sync(self._server.revive)
                async with await injected.connected(self._dsn) as conn:
                    await conn.execute(healing)
                return
            except psycopg.Error:
                await anyio.sleep(0.5)

    # --- models ---------------------------------------------------------------------------------

    @property
    def _mood_file(self) -> Path:
        return self._where.folder / MOOD

    async def _mood(self, mood: str) -> None:
        moods.put(self._mood_file, mood)
        await anyio.sleep(self._dice.uniform(1, 3))
        moods.put(self._mood_file, None)
