"""Visits every state that some processes can reach, breadth first, so that what it finds is a shortest way.

A process is a program: a generator that yields statements and is sent their results. What it holds in memory
is what it was sent, so a state is small: the tables, and for each process its program, its arguments, the
results so far, and the writes and locks of its open transaction. Equal parts of states are stored once.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Any

from tests.model.protocol.postgres import Blocked, Idle, Options, Session, Statement, Violation
from tests.model.protocol.schema import IMMUTABLE, LOCK_ORDER, TABLES, Tables
from tests.model.protocol.states import (
    ENDED,
    Budget,
    Call,
    Check,
    Counterexample,
    Memory,
    Pool,
    Process,
    Result,
    Scenario,
    State,
)


class Explorer:
    """Explores one scenario under one set of rules."""

    def __init__(
        self,
        scenario: Scenario,
        rules: Any,
        check: Check,
        time_passes: Callable[[Tables, bool], Iterator[tuple[str, Tables]]],
        *,
        reduced: bool = True,
        in_order: bool = True,
        limit: int = 10_000_000,
    ) -> None:
        self._scenario = scenario
        self.rules = rules
        self._check = check
        self._time_passes = time_passes
        self._reduced = reduced
        self._rank = LOCK_ORDER if in_order else {}
        self._limit = limit
        self._tables = {table: Pool() for table in TABLES}
        self._databases = Pool()
        self._memories = Pool()
        self._budgets = Pool()
        self._upcoming: dict[int, Statement | Call | None] = {}
        self._checked: set[int] = set()
        self.ends: set[frozenset[tuple[str, frozenset[tuple[Hashable, Any]]]]] = set()
        """What the tables hold where nothing moves any more."""
        self._transitions = 0

    def run(self) -> Result:
        """Visits all; stops at the first counterexample."""
        start = self._start()
        seen: dict[State, tuple[State, tuple[str, ...]] | None] = {start: None}
        queue = deque([start])
        ends = 0
        state, labels = start, ()
        try:
            self._check_tables(start[0])
            while queue:
                state = queue.popleft()
                moved = False
                labels = ()
                for labels, following in self._successors(state):
                    self._transitions += 1
                    if following == state:
                        continue
                    moved = True
                    if following not in seen:
                        seen[following] = (state, labels)
                        self._check_tables(following[0])
                        queue.append(following)
                if not moved:
                    ends += 1
                    labels = ("nothing moves any more",)
                    at_the_end = self._tables_of(state[0])
                    self.ends.add(frozenset((t, frozenset(rows.items())) for t, rows in at_the_end.items()))
                    self._check.at_the_end(at_the_end)
                if len(seen) > self._limit:
                    return Result(len(seen), self._transitions, ends, None, complete=False)
        except _Found as found:
            trace = (*self._trace(seen, state), *found.labels)
            return Result(len(seen), self._transitions, ends, Counterexample(found.broken, found.what, trace))
        except Violation as violation:
            trace = (*self._trace(seen, state), *labels)
            found = Counterexample(violation.broken, str(violation), trace)
            return Result(len(seen), self._transitions, ends, found)
        return Result(len(seen), self._transitions, ends, None)

    def walk(self) -> Tables:
        """The tables at the end of one way through the scenario."""
        state = self._start()
        while True:
            following = next((step[1] for step in self._successors(state) if step[1] != state), None)
            if following is None:
                return self._tables_of(state[0])
            state = following

    @staticmethod
    def _trace(seen: dict[State, tuple[State, tuple[str, ...]] | None], state: State) -> tuple[str, ...]:
        steps: list[tuple[str, ...]] = []
        while (before := seen[state]) is not None:
            state, labels = before
            steps.append(labels)
        return tuple(label for labels in reversed(steps) for label in labels)

    # --- states ----------------------------------------------------------------------------------

    def _start(self) -> State:
        memories = [self._remember(Memory(0, process.script[0])) for process in self._scenario.processes]
        budget = Budget(self._scenario.crashes, self._scenario.expiries)
        return (self._store({**self._scenario.tables}), *memories, self._budgets.number(budget, budget))

    def _store(self, tables: Tables) -> int:
        numbers = tuple(
            self._tables[table].number(frozenset(tables[table].items()), tables[table]) for table in TABLES
        )
        return self._databases.number(numbers, numbers)

    def _store_changed(self, database: int, tables: Tables, changed: set[str]) -> int:
        numbers = tuple(
            self._tables[table].number(frozenset(tables[table].items()), tables[table])
            if table in changed
            else number
            for table, number in zip(TABLES, self._databases.values[database], strict=True)
        )
        return self._databases.number(numbers, numbers)

    def _tables_of(self, database: int) -> Tables:
        numbers = self._databases.values[database]
        return {
            table: self._tables[table].values[number] for table, number in zip(TABLES, numbers, strict=True)
        }

    def _remember(self, memory: Memory) -> int:
        return self._memories.number(memory, memory)

    def _check_tables(self, database: int) -> None:
        if database not in self._checked:
            self._checked.add(database)
            self._check.always(self._tables_of(database))

    # --- steps -----------------------------------------------------------------------------------

    def _successors(self, state: State) -> Iterator[tuple[tuple[str, ...], State]]:
        moved = False
        waiting: dict[int, tuple[int, ...]] = {}
        for number, process in enumerate(self._scenario.processes):
            if not process.kept_back:
                for step in self._steps(state, number, waiting):
                    moved |= step[1] != state
                    yield step
        self._refuse_deadlock(waiting)
        yield from self._faults(state)
        if moved:
            return
        for number, process in enumerate(self._scenario.processes):
            if process.kept_back:
                for step in self._steps(state, number, waiting):
                    moved |= step[1] != state
                    yield step
        if not moved:
            yield from self._passing(state, hurried=False)

    def _steps(
        self, state: State, number: int, waiting: dict[int, tuple[int, ...]]
    ) -> Iterator[tuple[tuple[str, ...], State]]:
        """The process's next statement, with the quiet ones behind it."""
        pending: list[tuple[tuple[str, ...], State]] = [((), state)]
        while pending:
            labels, reached = pending.pop()
            statement = self._statement(reached[1 + number])
            if statement is None or (labels and not (self._reduced and statement.quiet)):
                if labels:
                    yield labels, reached
                continue
            try:
                pending.extend(
                    ((*labels, label), following)
                    for label, following in self._run(reached, number, statement)
                )
            except Blocked as blocked:
                if labels:
                    yield labels, reached
                else:
                    waiting[number] = blocked.holders
            except Idle:
                if labels:
                    yield labels, reached
            except Violation as violation:
                label = f"{self._scenario.processes[number].name}: {statement.label}"
                raise _Found(violation.broken, str(violation), (*labels, label)) from violation

    def _run(self, state: State, number: int, statement: Statement) -> Iterator[tuple[str, State]]:
        memory: Memory = self._memories.values[state[1 + number]]
        others = {
            other: locks
            for other in range(len(self._scenario.processes))
            if other != number and (locks := self._memories.values[state[1 + other]].locks)
        }
        tables = self._tables_of(state[0])
        session = Session(number, tables, memory.writes, memory.locks, others, IMMUTABLE, self._rank)
        result = statement.run(session)
        database = (
            self._store_changed(state[0], session.tables, session.changed) if session.changed else state[0]
        )
        writes, locks = session.writes, frozenset(session.locks.items())
        for outcome in result.outcomes if isinstance(result, Options) else (result,):
            after = memory._replace(results=(*memory.results, outcome), writes=writes, locks=locks)
            label = f"{self._scenario.processes[number].name}: {statement.label}"
            if isinstance(result, Options):
                label += f" -> {outcome}"
            yield label, self._with(state, number, self._settled(number, after), database)

    def _with(self, state: State, number: int, memory: int, database: int) -> State:
        return (database, *state[1 : 1 + number], memory, *state[2 + number :])

    def _settled(self, number: int, memory: Memory) -> int:
        """The memory after its program went on to the next statement, call or turn."""
        while True:
            remembered = self._remember(memory)
            upcoming = self._next_of(remembered)
            if isinstance(upcoming, Statement):
                return remembered
            if upcoming is not None:
                memory = memory._replace(call=upcoming, results=())
                continue
            assert not memory.locks, f"{memory.call} ends inside a transaction"
            memory = self._next_turn(number, memory.turn)
            if memory.call is None:
                return self._remember(memory)

    def _next_turn(self, number: int, turn: int) -> Memory:
        process = self._scenario.processes[number]
        turn += 1
        if turn == len(process.script):
            if not process.repeats:
                return ENDED
            turn = 0
        return Memory(turn, process.script[turn])

    def _statement(self, remembered: int) -> Statement | None:
        upcoming = self._next_of(remembered)
        assert not isinstance(upcoming, Call)
        return upcoming

    def _next_of(self, remembered: int) -> Statement | Call | None:
        """What the program does next, which what it was sent decides."""
        if remembered in self._upcoming:
            return self._upcoming[remembered]
        memory: Memory = self._memories.values[remembered]
        upcoming: Statement | Call | None = None
        if memory.call is not None:
            program = memory.call.program(self.rules, *memory.call.args)
            try:
                upcoming = next(program)
                for result in memory.results:
                    upcoming = program.send(result)
            except StopIteration as end:
                upcoming = end.value
        self._upcoming[remembered] = upcoming
        return upcoming

    # --- what goes wrong -------------------------------------------------------------------------

    def _refuse_deadlock(self, waiting: dict[int, tuple[int, ...]]) -> None:
        for first, holders in waiting.items():
            reached, ahead = set[int](), list(holders)
            while ahead:
                holder = ahead.pop()
                if holder == first:
                    names = [self._scenario.processes[number].name for number in sorted({first, *reached})]
                    raise _Found("deadlock", f"{' and '.join(names)} wait for each other", ("deadlock",))
                if holder not in reached:
                    reached.add(holder)
                    ahead.extend(waiting.get(holder, ()))

    def _faults(self, state: State) -> Iterator[tuple[tuple[str, ...], State]]:
        budget: Budget = self._budgets.values[state[-1]]
        if budget.crashes:
            for number, process in enumerate(self._scenario.processes):
                memory: Memory = self._memories.values[state[1 + number]]
                if process.crashes and self._is_busy(process, memory):
                    left = budget._replace(crashes=budget.crashes - 1)
                    yield (
                        (f"{process.name}: is killed",),
                        (
                            *self._with(
                                state, number, self._remember(self._killed(process, memory)), state[0]
                            )[:-1],
                            self._budgets.number(left, left),
                        ),
                    )
        if budget.expiries:
            left = budget._replace(expiries=budget.expiries - 1)
            for labels, following in self._passing(state, hurried=True):
                yield labels, (*following[:-1], self._budgets.number(left, left))

    @staticmethod
    def _is_busy(process: Process, memory: Memory) -> bool:
        if memory.call is None:
            return False
        return bool(memory.results) or memory.call != process.script[memory.turn]

    @staticmethod
    def _killed(process: Process, memory: Memory) -> Memory:
        if process.comes_back:
            return Memory(memory.turn, process.script[memory.turn])
        return ENDED

    def _passing(self, state: State, *, hurried: bool) -> Iterator[tuple[tuple[str, ...], State]]:
        for label, tables in self._time_passes(self._tables_of(state[0]), hurried):
            yield (f"time: {label}",), (self._store(tables), *state[1:])


class _Found(Exception):
    """A violation inside a step, with the statements of the step."""

    def __init__(self, broken: str, what: str, labels: tuple[str, ...]) -> None:
        super().__init__(what)
        self.broken, self.what, self.labels = broken, what, labels
