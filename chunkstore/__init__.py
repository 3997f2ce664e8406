"""A versioned store of document chunks and their embeddings, on Postgres.

For example:
    async with await ChunkStore.open() as store:
        notes = await store.collection("notes", model="minilm")
        await notes.append("a.txt", [Chunk("…")])
        hits = await notes.search("…", k=5)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from chunkstore.errors import ChunkstoreError

if TYPE_CHECKING:
    from chunkstore.collection import Collection
    from chunkstore.model import Chunk, Hit, Hits, Place, StoredChunk, Version
    from chunkstore.store import ChunkStore

__version__ = "0.1.0"

__all__ = [
    "Chunk",
    "ChunkStore",
    "ChunkstoreError",
    "Collection",
    "Hit",
    "Hits",
    "Place",
    "StoredChunk",
    "Version",
]


def __getattr__(name: str) -> Any:
    # Late: a short command must not pay for numpy and the pool, nor help for anything.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = {"ChunkStore": "store", "Collection": "collection"}.get(name, "model")
    return getattr(import_module(f"{__name__}.{home}"), name)
