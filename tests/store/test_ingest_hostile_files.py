"""Files that harm what reads them: one line in the list of failures each, and the others go in."""

import os
import signal
import sys
from pathlib import Path

import anyio
import pytest

from chunkstore.collection import Collection
from chunkstore.errors import InvalidInput, WorkerFailed
from chunkstore.ingest.chunking import Chunker
from chunkstore.ingest.document import Document
from chunkstore.ingest.frames import Task
from chunkstore.ingest.pipeline import IngestReport, Limits, ingest
from chunkstore.ingest.workers import Workers
from chunkstore.model import Chunk
from tests.store.fix_formats import Counted, reads
from tests.store.fix_store import collection, store

__all__ = ["collection", "reads", "store"]

LIMITS = Limits(seconds=6, memory=256 << 20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten good files, around which bad ones come."""
    folder = tmp_path / "f"
    folder.mkdir()
    for i in range(10):
        (folder / f"good{i}.odd").write_text(f"text {i}")
    return folder


def failures(report: IngestReport) -> dict[str, str]:
    return {Path(path).name: reason for path, reason in report.failed}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("hang", "parser killed after 6 s"),
        ("stop", "parser killed after 6 s"),
        ("bomb", "needed more than 256 MiB of memory"),
        ("crash", "parser crashed: SIGSEGV"),
        ("abort", "parser crashed: SIGABRT"),
        ("exit", "parser ended its process with exit code 3"),
        ("quit", "the parser failed: SystemExit: 4"),
        ("raise", "a damaged odd: KeyError: 'no such thing'"),
    ],
)
async def test_a_file_that_harms_its_reader_fails_and_the_others_go_in(
    collection: Collection, folder: Path, content: str, reason: str
) -> None:
    (folder / "good5_bad.odd").write_text(content)
    report = await ingest(collection, [folder], limits=LIMITS)
    assert failures(report) == {"good5_bad.odd": reason}
    assert report.added == 10


@pytest.mark.slow
async def test_many_bad_files_at_once_are_a_line_each(collection: Collection, folder: Path) -> None:
    contents = ("crash", "raise", "bomb", "abort", "exit", "quit", "hang")
    for i, content in enumerate(contents * 2):
        (folder / f"{i}-{content}.odd").write_text(content)
    report = await ingest(collection, [folder], limits=Limits(seconds=6, memory=256 << 20))
    assert (report.added, len(report.failed)) == (10, 14)
    for name, reason in failures(report).items():
        kind = name.removesuffix(".odd").partition("-")[2]
        assert (
            reason
            == {
                "crash": "parser crashed: SIGSEGV",
                "abort": "parser crashed: SIGABRT",
                "raise": "a damaged odd: KeyError: 'no such thing'",
                "bomb": "needed more than 256 MiB of memory",
                "exit": "parser ended its process with exit code 3",
                "quit": "the parser failed: SystemExit: 4",
                "hang": "parser killed after 6 s",
            }[kind]
        )


async def test_what_a_parser_prints_does_no_harm(collection: Collection, folder: Path) -> None:
    (folder / "print.odd").write_text("print this")
    report = await ingest(collection, [folder])
    assert (report.added, report.failed) == (11, ())
    assert [chunk.content async for chunk in collection.chunks("f/print.odd")] == ["print this"]


async def test_a_file_that_failed_is_tried_again_by_the_next_ingestion(
    collection: Collection, folder: Path, reads: Counted
) -> None:
    (folder / "bad.odd").write_text("raise")
    await ingest(collection, [folder])
    (folder / "bad.odd").write_text("better")
    report = await ingest(collection, [folder])
    assert (report.added, report.unchanged, report.failed) == (1, 10, ())
    assert reads() == 12


async def test_a_file_that_fails_after_it_went_in_keeps_its_version(
    collection: Collection, folder: Path
) -> None:
    await ingest(collection, [folder])
    (folder / "good3.odd").write_text("crash")
    report = await ingest(collection, [folder])
    assert (report.unchanged, len(report.failed)) == (9, 1)
    assert [chunk.content async for chunk in collection.chunks("f/good3.odd")] == ["text 3"]


# --- a crash in the middle of a large file ------------------------------------------------------


def dies_late(document: Document) -> "list[Chunk] | object":
    """Cuts by lines, and crashes its process over the last of them."""

    def cut() -> object:
        for line in document.text.splitlines():
            if line == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            if line == "hang":
                while True:
                    pass
            yield Chunk(line)

    return cut()


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("crash", "parser crashed: SIGSEGV"),
        pytest.param("hang", "parser killed after 6 s", marks=pytest.mark.slow),
    ],
)
async def test_a_file_whose_reader_dies_half_way_leaves_no_version(
    collection: Collection, tmp_path: Path, end: str, reason: str
) -> None:
    (tmp_path / "d").mkdir()
    lines = "\n".join(f"line {i} " + "x" * 400 for i in range(60_000))
    (tmp_path / "d" / "big.txt").write_text(f"{lines}\n{end}\n")
    report = await ingest(collection, [tmp_path / "d"], chunker=dies_late, limits=LIMITS)
    assert failures(report) == {"big.txt": reason}
    history = await collection.history("d/big.txt")
    assert [version.state for version in history] == ["abandoned"]


@pytest.mark.slow
async def test_the_chunks_of_a_large_file_never_lie_all_in_memory(
    collection: Collection, tmp_path: Path
) -> None:
    """The reader waits for the appender: what is under way between them is bounded."""
    path = tmp_path / "big.txt"
    path.write_text("\n\n".join(f"Paragraph {i}. " + "words " * 150 for i in range(20_000)))
    async with Workers(Chunker(), Limits()) as workers, workers.reading(Task(os.fsencode(path))) as reading:
        parts = reading.frames()
        first = await anext(parts)
        pid = reading._worker._process.pid  # type: ignore[union-attr]
        await until_asleep(pid)
        sent_by_then = written(pid)
        assert sent_by_then < 1 << 20 < path.stat().st_size
        count = len(first)
        async for part in parts:
            count += len(part)
        assert count > 10_000


async def until_asleep(pid: int) -> None:
    """Returns when the process does nothing any more: its processor time stands still."""
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    before = -1
    with anyio.fail_after(60):
        while (now := ticks(pid)) != before:
            before = now
            await anyio.sleep(0.3)


def ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def written(pid: int) -> int:
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("wchar")).split()[1])


# --- the workers themselves ---------------------------------------------------------------------


async def test_workers_are_few_and_serve_many_files(collection: Collection, folder: Path) -> None:
    async with Workers(Chunker(), Limits(), most=2) as workers:
        pids: set[int] = set()

        async def read(path: Path) -> None:
            async with workers.reading(Task(os.fsencode(path))) as reading:
                pids.add(reading._worker._process.pid)  # type: ignore[union-attr]
                assert [part async for part in reading.frames()]

        async with anyio.create_task_group() as tasks:
            for i in range(10):
                tasks.start_soon(read, folder / f"good{i}.odd")
        assert 1 <= len(pids) <= 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_worker_that_is_killed_between_two_files_is_replaced(folder: Path) -> None:
    task = Task(os.fsencode(folder / "good1.odd"))
    async with Workers(Chunker(), Limits(), most=1) as workers:
        async with workers.reading(task) as reading:
            pid = reading._worker._process.pid  # type: ignore[union-attr]
            assert len([part async for part in reading.frames()]) == 1
        os.kill(pid, signal.SIGKILL)
        async with workers.reading(task) as reading:
            assert reading._worker._process.pid != pid  # type: ignore[union-attr]
            assert len([part async for part in reading.frames()]) == 1


async def test_a_reading_that_is_given_up_ends_its_process(folder: Path) -> None:
    (folder / "hang.odd").write_text("hang")
    async with Workers(Chunker(), Limits(), most=1) as workers:
        with anyio.move_on_after(1) as scope:
            async with workers.reading(Task(os.fsencode(folder / "hang.odd"))):
                pass
        assert scope.cancelled_caught
        async with workers.reading(Task(os.fsencode(folder / "good1.odd"))) as reading:
            assert len([part async for part in reading.frames()]) == 1


async def test_a_chunker_that_no_worker_can_import_is_an_error_and_not_a_failure_of_every_file(
    collection: Collection, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone.py").write_text("def cut(document):\n    return []\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import gone  # type: ignore[import-not-found]

    (tmp_path / "gone.py").unlink()
    with pytest.raises(WorkerFailed, match="cannot be imported in a worker process"):
        await ingest(collection, [folder], chunker=gone.cut)


@pytest.mark.parametrize(("field", "value"), [("seconds", 0), ("seconds", float("nan")), ("memory", 1)])
def test_limits_that_leave_nothing_are_refused(field: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=field):
        Limits(**{field: value})  # type: ignore[arg-type]
