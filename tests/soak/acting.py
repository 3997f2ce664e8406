"""Calls the store as a careful program does, and writes down what was asked and answered."""

import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import anyio
import msgspec

from chunkstore.errors import ChunkstoreError, DatabaseError, NotFound
from chunkstore.model import Version
from chunkstore.retries import persistently
from tests.soak.journal import Begun, Ended, Heard, Journal, Operation, Outcome, label

T = TypeVar("T")


class Done(msgspec.Struct, frozen=True):
    """An operation that was called, and the version that it answered."""

    operation: Operation
    version: Version | None


class Actor:
    """What every process of the soak has that acts by dice: its journal and the dice of its life."""

    def __init__(self, name: str, stop: anyio.Event) -> None:
        self.name = Path(name).name
        self.stop = stop
        self.journal = Journal(Path(f"{name}.journal"))
        self.dice = random.Random(f"{self.name} {self.journal.next}")

    async def persistently(self, step: Callable[[], Awaitable[T]]) -> T:
        """The step's result, which may be tried often; writes down every error that was met on the way."""

        async def heard() -> T:
            try:
                return await step()
            except ChunkstoreError as error:
                self.journal.write(Heard(label(error)))
                raise

        return await persistently(heard, self.stop)

    async def call(
        self, begun: Begun, step: Callable[[], Awaitable[Version | None]], *, is_there: bool = False
    ) -> Done:
        """What came of the operation, which is written down. With `is_there`, NotFound is a wrong answer."""
        outcome: Outcome = "done"
        note, version = "", None
        try:
            version = await step()
        except DatabaseError as error:
            outcome, note = "unanswered", label(error)
        except ChunkstoreError as error:
            wrong = is_there and isinstance(error, NotFound)
            outcome, note = ("wrong", f"{begun.key}: {error}") if wrong else ("refused", label(error))
        except Exception as error:  # noqa: BLE001 - the soak's verdict names it
            outcome, note = "wrong", label(error)
        self.journal.write(Ended(begun.number, outcome, version and version.number, note))
        return Done(Operation(begun, outcome, version and version.number, note), version)

    def object(self, done: "Done", what: str) -> None:
        """Writes down that an answer was wrong."""
        begun = done.operation.begun
        self.journal.write(Ended(begun.number, "wrong", None, f"{begun.kind} {begun.key}: {what}"))
