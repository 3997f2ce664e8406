"""Paths and files that are not what they should be: each with its error, and nothing else lost."""

import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from chunkstore.collection import Collection
from chunkstore.errors import InvalidInput
from chunkstore.ingest.document import Document
from chunkstore.ingest.pipeline import IngestReport, ingest
from chunkstore.ingest.rehearsal import rehearse
from chunkstore.ingest.workers import Workers
from chunkstore.model import Chunk
from projections.verify import verify
from tests.store.fix_formats import age
from tests.store.fix_store import collection, store

__all__ = ["collection", "store"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder `f` with two good files."""
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "a.md").write_text("a good file")
    (folder / "z.md").write_text("another good file")
    return folder


def make_name(folder: Path, name: bytes) -> None:
    os.close(os.open(os.fsencode(folder) + b"/" + name, os.O_CREAT))


def bind(folder: Path) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(os.fspath(folder / "s.md"))
    listening.close()


def deep(folder: Path) -> None:
    long = folder.joinpath(*["n" * 200] * 6)
    long.mkdir(parents=True)
    (long / "x.md").write_text("text")


def sparse(folder: Path) -> None:
    with (folder / "b.md").open("wb") as file:
        file.truncate(2 << 30)


Make = Callable[[Path], object]


# What is made in the folder; whether its path is given too; what is said of it (None: it goes in).
IN_THE_FOLDER: dict[str, tuple[Make, str | None]] = {
    "a link out of the folder": (
        lambda f: (f / "b.md").symlink_to("/etc/passwd"),
        "a link out of the folder",
    ),
    "a link to a folder outside": (lambda f: (f / "b").symlink_to("/etc"), "a link out of the folder"),
    "a link to itself": (lambda f: (f / "b.md").symlink_to("b.md"), "a circle of links"),
    "a link to the folder that it is in": (lambda f: (f / "b").symlink_to("."), "a circle of links"),
    "a link to nothing": (lambda f: (f / "b.md").symlink_to("nothing"), "No such file or directory"),
    "a FIFO": (lambda f: os.mkfifo(f / "b.md"), "not a regular file"),
    "a socket": (bind, "not a regular file"),
    "a character device": (
        lambda f: os.mknod(f / "b.md", stat.S_IFCHR | 0o600, os.makedev(1, 3)),
        "not a regular file",
    ),
    "a hidden file": (lambda f: (f / ".b.md").write_text("text"), "hidden"),
    "a hidden folder": (lambda f: (f / ".git").mkdir(), "hidden"),
    "a tool's folder": (lambda f: (f / "node_modules").mkdir(), "a tool's own folder"),
    "a binary file": (lambda f: (f / "b.bin").write_bytes(b"\0\1\2\3" * 9), "not text"),
    "a name with a newline": (lambda f: make_name(f, b"b\nc.md"), None),
    "a name with a quote and a backslash": (lambda f: make_name(f, b"b'\\\".md"), None),
    "a name that goes backwards": (lambda f: make_name(f, "\u202eb.md".encode()), None),
    "a name that is no UTF-8": (lambda f: make_name(f, b"b\xff.md"), "lone surrogates"),
    "a name that is no UTF-8 and no text": (lambda f: make_name(f, b"\xed\xa0\x80.md"), "lone surrogates"),
    "a key of more than 1,024 bytes": (deep, "1 to 1024 UTF-8 bytes"),
    "a sparse file of 2 GB": (sparse, "2,147,483,648 bytes are more than the 268,435,456"),
    "an empty file": (lambda f: (f / "b.md").touch(), None),
    "a folder that is named like a file": (lambda f: (f / "b.md").mkdir(), None),
    "a file of NUL bytes": (lambda f: (f / "b.md").write_bytes(bytes(5_000)), "NUL"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", IN_THE_FOLDER)
async def test_what_a_folder_may_hold_stops_nobody(collection: Collection, folder: Path, case: str) -> None:
    make, said = IN_THE_FOLDER[case]
    make(folder)
    rehearsed = await rehearse(collection, [folder])
    report = await ingest(collection, [folder])
    assert (rehearsed.added, rehearsed.failed) == (report.added, report.failed)
    reasons = [reason for _, reason in report.failed] + [*report.left_out]
    assert len(reasons) == (said is not None)
    assert said is None or said in reasons[0]
    kept = [key async for key in collection.keys()]  # noqa: SIM118
    assert {"f/a.md", "f/z.md"} <= set(kept)
    assert len(kept) == report.added
    assert all(path.isprintable() or "\n" in path or "\u202e" in path for path, _ in report.failed)
    again = await ingest(collection, [folder])
    assert (again.added, again.unchanged, again.failed) == (0, report.added, report.failed)


NAMED: dict[str, tuple[Make, str, str]] = {
    "nothing": (lambda _: None, "nowhere.md", "no such file or folder"),
    "a FIFO": (lambda f: os.mkfifo(f / "b.md"), "b.md", "not a regular file"),
    "a device": (lambda _: None, "/dev/zero", "not a regular file"),
    "a link to nothing": (lambda f: (f / "b.md").symlink_to("nothing"), "b.md", "no such file or folder"),
    "a circle of links": (lambda f: (f / "b.md").symlink_to("b.md"), "b.md", "no such file or folder"),
    "a file as a folder": (lambda _: None, "a.md/b.md", "no such file or folder"),
    "a name too long for any file": (lambda _: None, "n" * 300 + ".md", "File name too long"),
    "a glob that finds nothing": (lambda _: None, "*.rst", "no file matches"),
    "a sparse file of 2 GB": (sparse, "b.md", "2,147,483,648 bytes"),
}


@pytest.mark.parametrize("case", NAMED)
async def test_a_path_that_is_none_is_a_failure_and_the_others_go_in(
    collection: Collection, folder: Path, case: str
) -> None:
    make, name, said = NAMED[case]
    make(folder)
    report = await ingest(collection, [folder / "a.md", folder / name, folder / "z.md"])
    assert report.added == 2
    assert [said in reason for _, reason in report.failed] == [True]


@pytest.mark.parametrize("path", ["", "a\0b", "\ud800.md", "a\udcff\udfff", "[z-a].md"])
async def test_a_path_that_no_file_can_have_is_refused(
    collection: Collection, folder: Path, path: str
) -> None:
    with pytest.raises(InvalidInput, match="paths"):
        await ingest(collection, [folder, path])
    assert [key async for key in collection.keys()] == []  # noqa: SIM118


async def test_a_folder_without_permission_is_a_failure_and_loses_nothing(
    collection: Collection, folder: Path
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything; tests/unit/test_sources.py tries as another user")
    (folder / "closed").mkdir()
    (folder / "closed" / "b.md").write_text("text")
    await ingest(collection, [folder])
    (folder / "closed").chmod(0)
    report = await ingest(collection, [folder], prune=True)
    assert [reason for _, reason in report.failed] == ["Permission denied"]
    assert (report.deleted, report.unchanged) == (0, 2)


# --- files that change or vanish while they are read --------------------------------------------


class Meanwhile:
    """Does something to a file each time that its reader has read its bytes, from another process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.told = folder / "asked", folder / "told"
        os.mkfifo(self.asked)
        os.mkfifo(self.told)
        monkeypatch.setenv("TEST_MEANWHILE", str(folder))

    def do(self, *actions: Callable[[], object]) -> threading.Thread:
        def act() -> None:
            for action in actions:
                self.asked.read_bytes()
                action()
                self.told.write_bytes(b"go on")

        thread = threading.Thread(target=act, daemon=True)
        thread.start()
        return thread


@pytest.fixture
def meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """What happens while a file of the slow format is read."""
    return Meanwhile(tmp_path, monkeypatch)


def failures(report: IngestReport) -> list[str]:
    return [reason for _, reason in report.failed]


async def test_a_file_that_changes_while_it_is_read_is_read_again(
    collection: Collection, folder: Path, meanwhile: Meanwhile
) -> None:
    path = folder / "b.slow"
    path.write_text("before")
    thread = meanwhile.do(lambda: path.write_text("and after"), lambda: None)
    report = await ingest(collection, [folder])
    thread.join(30)
    assert (report.added, failures(report)) == (3, [])
    assert [chunk.content async for chunk in collection.chunks("f/b.slow")] == ["and after"]


async def test_a_file_that_changes_all_the_time_is_a_failure(
    collection: Collection, folder: Path, meanwhile: Meanwhile
) -> None:
    path = folder / "b.slow"
    path.write_text("before")
    thread = meanwhile.do(lambda: path.write_text("after"), lambda: path.write_text("and later"))
    report = await ingest(collection, [folder])
    thread.join(30)
    assert (report.added, failures(report)) == (2, ["it changes while it is read"])


async def test_a_file_that_vanishes_while_it_is_read_is_a_failure(
    collection: Collection, folder: Path, meanwhile: Meanwhile
) -> None:
    path = folder / "b.slow"
    path.write_text("before")
    thread = meanwhile.do(path.unlink)
    report = await ingest(collection, [folder])
    thread.join(30)
    assert (report.added, failures(report)) == (2, ["no such file: it has vanished"])


async def test_a_file_that_becomes_a_fifo_before_it_is_read_is_a_failure_and_not_waited_for(
    collection: Collection, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "a.md"

    class Swapping(Workers):
        async def take(self):  # type: ignore[no-untyped-def] # noqa: ANN202
            if path.is_file():
                path.unlink()
                os.mkfifo(path)
            return await super().take()

    monkeypatch.setattr("chunkstore.ingest.pipeline.Workers", Swapping)
    report = await ingest(collection, [folder])
    assert (report.added, failures(report)) == (1, ["not a regular file"])


# --- bad chunkers -------------------------------------------------------------------------------


def empty(document: Document) -> list[Chunk]:
    return [Chunk("")]


def no_chunks(document: Document) -> list[str]:
    return ["text"]


def nothing(document: Document) -> None:
    return None


def surrogates(document: Document) -> list[Chunk]:
    return [Chunk("\ud800")]


def not_json(document: Document) -> list[Chunk]:
    return [Chunk("text", {"when": {1, 2}, "what": object()})]


def not_a_number(document: Document) -> list[Chunk]:
    return [Chunk("text", {"score": float("nan")})]


@pytest.mark.parametrize(
    ("chunker", "said"),
    [
        (empty, "content: '' is not allowed"),
        (no_chunks, "the chunker failed: AttributeError"),
        (nothing, "the chunker failed: TypeError"),
        (surrogates, "the chunker failed: UnicodeEncodeError"),
        (not_json, "the chunker failed: TypeError"),
        (not_a_number, "a finite number"),
    ],
)
async def test_what_a_chunker_makes_wrong_is_each_files_failure(
    collection: Collection, folder: Path, chunker: Callable[[Document], list[Chunk]], said: str
) -> None:
    report = await ingest(collection, [folder], chunker=chunker)
    assert [said in reason for reason in failures(report)] == [True, True], report.failed
    assert (await verify(collection.store)).ok


async def test_a_folder_that_is_replaced_by_a_file_of_its_name_keeps_both_histories(
    collection: Collection, tmp_path: Path
) -> None:
    root = tmp_path / "r"
    (root / "x.md").mkdir(parents=True)
    (root / "x.md" / "y.md").write_text("inside")
    await ingest(collection, [root])
    (root / "x.md" / "y.md").unlink()
    (root / "x.md").rmdir()
    (root / "x.md").write_text("a file now")
    age(root / "x.md")
    report = await ingest(collection, [root], prune=True)
    assert (report.added, report.deleted) == (1, 1)
    assert [key async for key in collection.keys()] == ["r/x.md"]  # noqa: SIM118
