"""The embedding consumer: reads what a range owes, copies equal texts, embeds the rest, stores it at once.

Keeps rules 10 to 14: skips what no version needs, carries copied vectors from the read, halves a failing
batch, counts attempts for single chunks alone, and writes in one transaction with its lease.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from time import monotonic
from typing import Any

import anyio
import msgspec
import numpy as np
from numpy.typing import NDArray
from psycopg import AsyncConnection

from chunkstore import catalog, dead_letters, embeddings, leases
from chunkstore.embeddings import Owed
from chunkstore.errors import (
    EmbeddingFailed,
    InvalidInput,
    ModelRefused,
    ModelUnavailable,
    TextsFailed,
    UnknownModel,
)
from chunkstore.leases import Lease
from chunkstore.model import ChunkId, CollectionId
from chunkstore.models import Model, Spends, Spent
from chunkstore.models.checks import checked_vectors
from chunkstore.models.truncation import cut_texts
from chunkstore.retries import persistently
from chunkstore.search_tables import ModelRow
from chunkstore.store import ChunkStore
from consumers.batching import MOST_GIVEN, Batching
from consumers.loop import Handler, Loop, NotNow

MAX_ATTEMPTS = 3
_RETRY_SECONDS = 0.2
_TWIN_SECONDS = 0.2
"""After which a range looks again whether the vector of an equal text has come."""
_ERROR_CHARACTERS = 2000

Text = tuple[CollectionId, bytes]


class ConsumeReport(msgspec.Struct):
    """What a run came to, in chunks and ranges."""

    embedded: int = 0
    """Chunks that the model embedded."""
    truncated: int = 0
    """Of these, the ones of which the model read only the beginning: they are longer than its limit."""
    copied: int = 0
    """Chunks whose text was embedded already."""
    stored: int = 0
    """New embeddings written."""
    ranges: int = 0
    halved: int = 0
    retried: int = 0
    dead_letters: int = 0
    spent: Spent | None = None
    """What the model's service counted for this run; None for a model that costs nothing."""


class Work(msgspec.Struct, frozen=True):
    """What one range owes: the chunks, the vectors that can be copied, and the texts for the model."""

    owed: list[Owed]
    copied: dict[Text, list[float]]
    texts: dict[Text, str]
    waits: bool = False
    """Other chunks of the range wait for a vector that somebody else makes of the same text."""


class Result(msgspec.Struct, frozen=True):
    """Vectors by text, and what is wrong with the texts that have none."""

    vectors: dict[Text, NDArray[np.float32]]
    errors: dict[Text, str]


class EmbeddingConsumer:
    """Embeds for one model, for every collection of the store that has it.

    It claims and gives the model up to `batch` chunks at once; with None 256, up to 1,024 where the model
    is fast. A call of the model may take `model_seconds`: then the model hangs. `on_outage` hears of every
    call that found the model's provider down. Raises InvalidInput for a number out of its range.
    """

    def __init__(
        self,
        store: ChunkStore,
        model: Model,
        *,
        batch: int | None = None,
        lease_seconds: float = 60.0,
        model_seconds: float = 1800.0,
        on_progress: Callable[[ConsumeReport], None] | None = None,
        on_outage: Callable[[ModelUnavailable], None] | None = None,
    ) -> None:
        if batch is not None and (type(batch) is not int or not 1 <= batch <= MOST_GIVEN):
            allowed = f"an integer from 1 to {MOST_GIVEN}, or None for what suits the model"
            raise InvalidInput("batch", batch, allowed)
        if not lease_seconds > 0:
            raise InvalidInput("lease_seconds", lease_seconds, "a number of seconds above 0")
        if not model_seconds > 0:
            raise InvalidInput("model_seconds", model_seconds, "a number of seconds above 0")
        self._store = store
        self._model = model
        self._batching = Batching(batch)
        self._lease_seconds = lease_seconds
        self._model_seconds = model_seconds
        self._on_progress = on_progress
        self._on_outage = on_outage
        self.report = ConsumeReport()

    async def run(self, *, drain: bool = False, stop: anyio.Event | None = None) -> ConsumeReport:
        """Embeds until `stop` is set, or with `drain` until nothing is left to embed.

        Raises UnknownModel, or ModelMismatch before anything is embedded; ModelRefused where the model's
        provider refuses the key, the model or every text; ModelHangs where a call takes too long. Its
        thread is left behind, so that the process has to end by `os._exit`. DatabaseError's family where
        trying again is no use.
        """
        known = await persistently(self._known_model, stop)
        loop = Loop(
            self._store.database,
            leases.embedding_group(known.model),
            self.handler(known),
            batching=self._batching,
            lease_seconds=self._lease_seconds,
            model_seconds=self._model_seconds,
            on_settled=self._store.hints.give,
            on_outage=self._on_outage,
        )
        await loop.run(drain=drain, stop=stop)
        return self.report

    def handler(self, known: ModelRow) -> Handler[Any, Any]:
        """What is done with each range; a subclass that watches the consumer wraps it."""
        return _Embedding(self._store, self._model, known, self._batching, self.report, self._on_progress)

    async def _known_model(self) -> ModelRow:
        async with self._store.database.transaction() as conn:
            models = await catalog.every_model(conn)
        for model in models:
            if model.name == self._model.name:
                catalog.check_same(model, self._model)
                return model
        raise UnknownModel(
            f"model: no collection of this store has the model {self._model.name!r}; create one with it first"
        )


class _Embedding:
    """The handler of one model's ranges."""

    def __init__(
        self,
        store: ChunkStore,
        model: Model,
        known: ModelRow,
        batching: Batching,
        report: ConsumeReport,
        on_progress: Callable[[ConsumeReport], None] | None,
    ) -> None:
        self._store = store
        self._model = model
        self._known = known
        self._batching = batching
        self._report = report
        self._on_progress = on_progress
        self._spent_before = model.spent if isinstance(model, Spends) else Spent()

    async def read(self, conn: AsyncConnection[Any], lease: Lease) -> Work | None:
        owed = await embeddings.owed(conn, lease, self._known.model)
        if lease.is_single and lease.attempts >= MAX_ATTEMPTS and owed:
            error = f"the consumer died or outran its lease {lease.attempts} times over this chunk"
            await self._give_up(conn, lease, owed[0].chunk_id, lease.attempts, error)
            return None
        if not owed:
            await self._store_vectors(conn, lease, [], np.empty((0, self._known.dimensions), np.float32))
            return None
        copied = await embeddings.copies(conn, owed, self._known.model)
        lacking = [chunk for chunk in owed if _text(chunk) not in copied]
        elsewhere = await embeddings.in_hand(conn, lease, self._known.model, lacking)
        here = [chunk for chunk in owed if _text(chunk) not in elsewhere]
        if not here:
            await leases.release(conn, lease, delay=_TWIN_SECONDS)
            return None
        texts = {_text(chunk): chunk.text for chunk in lacking if _text(chunk) not in elsewhere}
        return Work(here, copied, texts, waits=len(here) < len(owed))

    def work(self, work: Work, turn: AbstractContextManager[None]) -> Result:
        vectors = {text: np.asarray(vector, np.float32) for text, vector in work.copied.items()}
        if not work.texts:
            return Result(vectors, {})
        wanted = list(work.texts)
        try:
            with turn:
                begun = monotonic()
                answer, failed = self._ask(list(work.texts.values()))
                self._batching.took(len(wanted), monotonic() - begun)
            array, bad = checked_vectors(self._model, answer, len(wanted))
            cut = cut_texts(self._model, list(work.texts.values()))
        except (ModelUnavailable, ModelRefused, NotNow):
            raise
        except EmbeddingFailed as error:
            return Result(vectors, dict.fromkeys(wanted, str(error)))
        except Exception as error:  # noqa: BLE001 - a model may raise anything, and a batch is halved for it
            return Result(vectors, dict.fromkeys(wanted, f"{type(error).__name__}: {error}"))
        errors = {wanted[row]: reason for row, reason in (dict(bad) | failed).items()}
        embedded = {text: vector for text, vector in zip(wanted, array, strict=True) if text not in errors}
        self._report.embedded += len(embedded)
        self._report.truncated += sum(wanted[row] in embedded for row in cut)
        return Result(vectors | embedded, errors)

    def _ask(self, texts: list[str]) -> tuple[object, dict[int, str]]:
        """The model's answer, and the rows of it that are no vectors, with the reason."""
        try:
            return self._model.embed(texts), {}
        except TextsFailed as error:
            return error.vectors, error.errors
        finally:
            if isinstance(self._model, Spends):
                self._report.spent = self._model.spent - self._spent_before

    async def settle(self, conn: AsyncConnection[Any], lease: Lease, work: Work, result: Result) -> None:
        good = [chunk for chunk in work.owed if _text(chunk) in result.vectors]
        rows = [result.vectors[_text(chunk)] for chunk in good]
        vectors = np.stack(rows) if rows else np.empty((0, self._known.dimensions), np.float32)
        ids = [chunk.chunk_id for chunk in good]
        if not result.errors:
            await self._store_vectors(conn, lease, ids, vectors, finished=not work.waits)
            if work.waits:
                await leases.release(conn, lease, delay=_TWIN_SECONDS)
        elif not lease.is_single:
            await self._store_vectors(conn, lease, ids, vectors, finished=False)
            await leases.halve(conn, lease)
            self._report.halved += 1
        elif lease.attempts + 1 < MAX_ATTEMPTS:
            await leases.count_attempt(conn, lease, delay=_RETRY_SECONDS * 2**lease.attempts)
            self._report.retried += 1
        else:
            error = next(iter(result.errors.values()))[:_ERROR_CHARACTERS]
            await self._give_up(conn, lease, work.owed[0].chunk_id, lease.attempts + 1, error)
        self._report.copied += sum(_text(chunk) in work.copied for chunk in good)

    async def _store_vectors(
        self,
        conn: AsyncConnection[Any],
        lease: Lease,
        ids: list[ChunkId],
        vectors: NDArray[np.float32],
        *,
        finished: bool = True,
    ) -> None:
        stored = await embeddings.complete(conn, lease, self._known.model, ids, vectors, finished=finished)
        self._report.stored += len(stored)
        self._report.ranges += finished
        if self._on_progress is not None:
            self._on_progress(self._report)

    async def _give_up(
        self, conn: AsyncConnection[Any], lease: Lease, chunk: ChunkId, attempts: int, error: str
    ) -> None:
        given_up = await dead_letters.give_up(
            conn,
            lease,
            self._known.model,
            chunk,
            attempts=attempts,
            error=error.encode(errors="replace").decode().replace("\0", "?"),
        )
        self._report.dead_letters += given_up


def _text(chunk: Owed) -> Text:
    return chunk.collection, chunk.text_hash
