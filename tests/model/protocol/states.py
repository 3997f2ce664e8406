"""What an exploration is made of: processes and their memory, scenarios, what is checked, what came out."""

from collections.abc import Callable, Generator, Hashable
from typing import Any, NamedTuple

from tests.model.protocol.postgres import Place, Statement
from tests.model.protocol.schema import Tables

Program = Callable[..., Generator[Statement, Any, "Call | None"]]


class Call(NamedTuple):
    """A program and what it is called with; a program may end with the call that goes on for it."""

    program: Program
    args: tuple[Any, ...] = ()


def call(program: Program, *args: Any) -> Call:
    """The program with its arguments."""
    return Call(program, args)


class Process(NamedTuple):
    """One process: its calls one after the other, or again and again."""

    name: str
    script: tuple[Call, ...]
    repeats: bool = False
    crashes: bool = False
    """Whether the scenario's crash may hit it."""
    comes_back: bool = True
    """Whether it begins the interrupted call anew after a crash, with an empty memory."""
    kept_back: bool = False
    """Whether it runs only when nobody else can: housekeeping that must leave nothing undone."""


class Memory(NamedTuple):
    """A process in one state."""

    turn: int
    """Which call of the script it is in."""
    call: Call | None
    """None where it has ended or died."""
    results: tuple[Any, ...] = ()
    writes: frozenset[tuple[str, Hashable, Any]] = frozenset()
    locks: frozenset[tuple[Place, int]] = frozenset()


ENDED = Memory(0, None)


class Budget(NamedTuple):
    """What may still go wrong."""

    crashes: int = 0
    expiries: int = 0


class Scenario(NamedTuple):
    """Some processes over some tables, and what is checked."""

    name: str
    tables: Tables
    processes: tuple[Process, ...]
    crashes: int = 0
    expiries: int = 0
    """How many leases and deadlines may run out early. They all do once nobody can move."""
    rules: Any = None
    """What the protocol leaves open, chosen for this scenario; a mutant leaves out of it."""
    served: frozenset[str] = frozenset("m")
    """The models that have consumers and a projector, which must have done everything at the end."""
    collects: bool = False
    """Whether a collector runs, which must have left nothing at the end."""


class Counterexample(NamedTuple):
    """What was broken, how, and the shortest way there, a statement a line."""

    broken: str
    what: str
    trace: tuple[str, ...]


class Result(NamedTuple):
    """What an exploration came to."""

    states: int
    transitions: int
    ends: int
    counterexample: Counterexample | None
    complete: bool = True


State = tuple[int, ...]


class Check(NamedTuple):
    """The invariants of every state and those of end states; each raises Violation."""

    always: Callable[[Tables], None]
    at_the_end: Callable[[Tables], None]


class Pool:
    """Values by number: equal values have one number."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def number(self, key: Hashable, value: Any) -> int:
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.values)
            self.values.append(value)
        return number
