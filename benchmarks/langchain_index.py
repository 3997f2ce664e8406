"""LangChain's indexing API as a peer, in an interpreter of its own: its pins do not agree with ours.

Run by that interpreter, it reads `first` or `again` from each line of its input, does it and prints the
seconds. `Api` is the other end: it drives the interpreter that CHUNKSTORE_BENCH_LANGCHAIN names, which has
`langchain-postgres` and `langchain-classic` installed.
"""

import os
import random
import subprocess
import sys
from time import perf_counter
from typing import Any, Self
from uuid import uuid4

VARIABLE = "CHUNKSTORE_BENCH_LANGCHAIN"
_DIMENSIONS = 384
_SIZE = 800


class Api:
    """The other interpreter, from `with` to its end."""

    def __init__(self, dsn: str, count: int) -> None:
        self._command = [os.environ[VARIABLE], __file__, dsn, str(count)]

    @staticmethod
    def is_there() -> bool:
        return VARIABLE in os.environ

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def seconds(self, work: str) -> float:
        """Has `first` (everything anew) or `again` (one document in a hundred changed) done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{work}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


class _Index:
    def __init__(self, dsn: str, count: int) -> None:
        from langchain_core.documents import Document

        self._dsn = dsn
        self._url = _url(dsn)
        rng = random.Random(0)
        words = ["".join(rng.choices("etaoinshrdlu", k=2 + i % 9)) for i in range(4_000)]
        texts = (f"{i} {' '.join(rng.choices(words, k=200))}"[:_SIZE] for i in range(count))
        self._documents = [Document(page_content=text, metadata={"source": "file"}) for text in texts]
        self._rng = rng

    def first(self) -> float:
        from langchain_classic.indexes import SQLRecordManager
        from langchain_postgres import PGVector

        name = uuid4().hex
        self._store = PGVector(
            embeddings=_Null(),
            collection_name=name,
            connection=self._url,
            use_jsonb=True,
            embedding_length=_DIMENSIONS,
        )
        self._records = SQLRecordManager(name, db_url=self._url)
        self._records.create_schema()
        return self._timed(self._documents)

    def again(self) -> float:
        from langchain_core.documents import Document

        if not hasattr(self, "_store"):
            self.first()
            self._build_index()
        changed = list(self._documents)
        for i in self._rng.sample(range(len(changed)), len(changed) // 100):
            text = f"{uuid4()} {changed[i].page_content}"[:_SIZE]
            changed[i] = Document(page_content=text, metadata={"source": "file"})
        return self._timed(changed)

    def _build_index(self) -> None:
        """Makes the index that a search needs; its users do so by hand."""
        import psycopg

        with psycopg.connect(self._dsn) as conn:
            conn.execute("CREATE INDEX ON langchain_pg_embedding USING hnsw (embedding vector_cosine_ops)")

    def _timed(self, documents: list[Any]) -> float:
        from langchain_core.indexing import index

        begun = perf_counter()
        index(
            documents,
            self._records,
            self._store,
            cleanup="full",
            source_id_key="source",
            key_encoder="sha256",
        )
        return perf_counter() - begun


class _Null:
    """Embeddings that cost nothing."""

    def __init__(self) -> None:
        rng = random.Random(0)
        self._vectors = [[rng.gauss(0, 1) for _ in range(_DIMENSIONS)] for _ in range(128)]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self._vectors[i % 128] for i in range(len(texts))]

    def embed_query(self, _text: str) -> list[float]:
        return self._vectors[0]


def _url(dsn: str) -> str:
    from psycopg.conninfo import conninfo_to_dict

    parts = conninfo_to_dict(dsn)
    query = "&".join(
        f"{name}={parts[name]}" for name in ("host", "port", "user", "password") if name in parts
    )
    return f"postgresql+psycopg:///{parts.get('dbname', 'postgres')}?{query}"


def _serve() -> None:
    indexing = _Index(sys.argv[1], int(sys.argv[2]))
    for line in sys.stdin:
        seconds = indexing.first() if line.strip() == "first" else indexing.again()
        sys.stdout.write(f"{seconds}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
