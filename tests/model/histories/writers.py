"""The steps of writers: append, again and in streams, delete, roll back, pin, erase."""

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, consumes, initialize, multiple, rule

from chunkstore import append as appending
from chunkstore import versions as versioning
from chunkstore.chunks import prepare
from chunkstore.manifests import Segmenter
from chunkstore.model import Chunk, FileId, Version
from tests.model.histories.arena import Arena
from tests.model.histories.expected import Answer, ExpectedFile
from tests.model.histories.history import KEYS, History

TEXTS = [f"text {i}" for i in range(9)]

Named = tuple[str, int]
"""A version by the name of its file and its number."""

keys = st.sampled_from([*KEYS, "a", "a"])


@st.composite
def texts(draw: st.DrawFn) -> list[str]:
    """A window of a few texts, so that versions share chunks; now and then one of its own, or repeats."""
    first = draw(st.integers(0, 6))
    drawn = TEXTS[first : first + draw(st.integers(1, 6))]
    also = draw(st.integers(0, 9))
    if also == 8:
        drawn.insert(len(drawn) // 2, f"own {draw(st.integers(0, 99))}")
    elif also == 9:
        drawn += drawn[:2]
    return drawn


class Stream:
    """A version that somebody streams, batch by batch."""

    def __init__(self, expected: ExpectedFile, file: FileId, version: int) -> None:
        self.expected, self.file, self.version = expected, file, version
        self.segmenter = Segmenter()


class Writers(History):
    """Any number of writers, some of whom stream."""

    versions: Bundle[Named] = Bundle("versions")
    streams: Bundle[Stream] = Bundle("streams")

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self.streaming: list[Stream] = []

    # --- whole versions -------------------------------------------------------------------------

    @initialize(target=versions, keep_last=st.sampled_from([1, 2, 3]), texts=texts())
    def begin_with(self, keep_last: int, texts: list[str]) -> Named:
        self.begin(keep_last)
        self._append("a", texts)
        return "a", 1

    @rule(
        target=versions,
        key=keys,
        texts=texts(),
        how=st.sampled_from(["plain"] * 4 + ["expecting", "too late", "try one", "try two"]),
    )
    def append(self, key: str, texts: list[str], how: str) -> Named | MultipleResults[Named]:
        """Plainly, or only if the latest version is the one that was seen, or under an idempotency key."""
        file = self.expected.files.get(self.keys[key])
        latest = file.latest if file else 0
        match how:
            case "expecting":
                number = self._append(key, texts, expected=latest)
            case "too late":
                number = self._append(key, texts, expected=max(0, latest - 1))
            case "try one" | "try two":
                number = self._append(key, texts, try_key=how)
            case _:
                number = self._append(key, texts)
        return multiple() if number is None else (key, number)

    @rule(version=versions, cut=st.integers(-3, 3), try_key=st.sampled_from([None, None, "try one"]))
    def append_again(self, version: Named, cut: int, try_key: str | None) -> None:
        """What a version held, whole or without one of its chunks."""
        key, number = version
        file = self.expected.files.get(self.keys[key])
        if file is not None and number in file.versions:
            texts = [text for i, text in enumerate(file.versions[number].texts) if i != cut]
            self._append(key, texts, try_key=try_key)

    def _append(
        self, key: str, texts: list[str], *, expected: int | None = None, try_key: str | None = None
    ) -> int | None:
        name = self.keys[key]

        async def append() -> Version:
            chunks = [Chunk(text) for text in texts]
            return await self.world.collection.append(
                name, chunks, expected_version=expected, idempotency_key=try_key
            )

        return self._number(
            self.both(lambda: self.expected.append(name, texts, expected=expected, try_key=try_key), append)
        )

    def _number(self, answers: tuple[Answer, Version] | None) -> int | None:
        if answers is None:
            return None
        expected, answer = answers
        assert Answer(answer.number, answer.unchanged, answer.replaced_rollback_to) == expected
        return expected.number

    @rule(
        version=versions,
        how=st.sampled_from(["roll back"] * 4 + ["pin", "unpin", "delete", "delete", "erase"]),
    )
    def change(self, version: Named, how: str) -> None:
        """Rolls back to a version, pins or unpins it; deletes or erases its file."""
        key, number = self.keys[version[0]], version[1]
        expected, collection = self.expected, self.world.collection
        match how:
            case "roll back":
                self.both(lambda: expected.file(key).roll_back(number), collection.rollback, key, number)
            case "pin":
                self.both(
                    lambda: expected.file(key).set_pinned(number, pinned=True), collection.pin, key, number
                )
            case "unpin":
                self.both(
                    lambda: expected.file(key).set_pinned(number, pinned=False), collection.unpin, key, number
                )
            case "delete":
                self._number(self.both(lambda: expected.file(key).delete(), collection.delete, key))
            case _:
                self.both(lambda: expected.erase(key), collection.erase, key)

    # --- streams --------------------------------------------------------------------------------

    @rule(target=streams, key=keys)
    def open_stream(self, key: str) -> Stream:
        name = self.keys[key]

        async def open_() -> tuple[FileId, int]:
            async with self.database.transaction() as conn:
                state = await versioning.lock(conn, self.world.collection.row.collection, name)
                return state.file, await versioning.open_version(conn, state.file, b"{}")

        file, number = self.call(open_)
        expected, expected_number = self.expected.open(name)
        assert number == expected_number
        self.streaming.append(Stream(expected, file, number))
        return self.streaming[-1]

    @rule(stream=streams, texts=texts(), how=st.sampled_from(["add a batch"] * 4 + ["lose it"]))
    def feed(self, stream: Stream, texts: list[str], how: str) -> None:
        """Adds a batch; or its deadline passes, and its writer does not know that and goes on."""
        if how == "lose it":
            self.call(self._pass_deadline, stream)
            stream.expected.abandon(stream.version)
            return
        hashing = self._write(stream).hashing
        chunks = [prepare(Chunk(text), hashing, position=0) for text in texts]
        drafts = list(stream.segmenter.feed(chunks))
        self.both(
            lambda: stream.expected.extend(stream.version, texts),
            appending._add_batch,
            self.database,
            self._write(stream),
            stream.file,
            stream.version,
            drafts,
        )

    async def _pass_deadline(self, stream: Stream) -> None:
        async with self.database.transaction() as conn:
            await conn.execute(
                "UPDATE versions SET deadline = '-infinity'"
                " WHERE state = 'open' AND file = %(file)s AND version = %(version)s",
                {"file": stream.file, "version": stream.version},
            )
        await self.collector.abandon_overdue(None)

    @rule(target=versions, stream=consumes(streams), how=st.sampled_from(["commit"] * 4 + ["give up"]))
    def end_stream(self, stream: Stream, how: str) -> Named | MultipleResults[Named]:
        """Commits it; or its writer fails, and says so."""
        if how == "give up":
            self.call(self._give_up_stream, stream)
            stream.expected.abandon(stream.version)
            return multiple()
        number = self._number(
            self.both(
                lambda: stream.expected.commit(stream.version),
                appending._commit,
                self.database,
                self._write(stream),
                stream.file,
                stream.version,
                stream.segmenter,
            )
        )
        key = next(key for key, name in self.keys.items() if name == stream.expected.key)
        return multiple() if number is None else (key, number)

    async def _give_up_stream(self, stream: Stream) -> None:
        async with self.database.transaction() as conn:
            await conn.execute(versioning.VERSIONS.lock_known_file, {"file": stream.file})
            state = await versioning._state(conn, stream.file, None)
            await versioning.abandon(conn, state, stream.version)

    def _write(self, stream: Stream) -> appending.Write:
        return self.world.collection._write(stream.expected.key, None, None, None)
