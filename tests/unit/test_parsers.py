"""Files read as documents: formats by name, formats of one's own, and files that cannot be opened."""

import codecs
import os
from pathlib import Path

import pytest

from chunkstore.errors import FormatNotInstalled, MissingExtra, UnreadableFile
from chunkstore.ingest import parsers
from chunkstore.ingest.document import Document
from chunkstore.ingest.formats.format import Format
from chunkstore.ingest.formats.sniffing import may_be_read
from chunkstore.ingest.parsers import is_current, is_registered, parse, register


def refused(path: Path) -> str:
    with pytest.raises(UnreadableFile) as caught:
        parse(path)
    return str(caught.value)


# --- text ----------------------------------------------------------------------------------------


def test_nothing_but_the_mark_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\r\ntwo\rthree\n\n \x0c\x1b[0m")
    assert parse(path).text == "one\r\ntwo\rthree\n\n \x0c\x1b[0m"


def test_an_empty_file_is_an_empty_text(tmp_path: Path) -> None:
    (tmp_path / "empty.md").touch()
    assert parse(tmp_path / "empty.md").text == ""


# --- refusals -----------------------------------------------------------------------------------


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.txt") == "no such file"


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    assert refused(tmp_path / "pipe.txt") == "not a regular file"
    assert refused(tmp_path) == "not a regular file"


def test_a_file_that_the_system_will_not_give_is_refused(tmp_path: Path) -> None:
    memory = Path("/proc/self/mem")
    if not memory.exists():
        pytest.skip("no /proc on this system")
    assert refused(memory) == "Input/output error"
    assert refused(tmp_path / ("long" * 100)) == "File name too long"


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(parsers.MAX_FILE_BYTES + 1)
    assert "bytes are more than" in refused(tmp_path / "huge.txt")


@pytest.mark.parametrize(
    ("head", "binary"),
    [
        (b"text", False),
        (b"", False),
        (b"a\0", True),
        (b"\x7fELF", True),
        (b"%PDF-", False),
        (codecs.BOM_UTF16_LE + b"a\0", False),
    ],
)
def test_a_binary_file_is_known_by_its_head(head: bytes, binary: bool) -> None:
    assert may_be_read(head) is not binary


# --- formats ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "language"),
    [("a.md", "markdown", None), ("A.MD", "markdown", None), ("a.txt", "text", None), ("a.rst", "text", None),
     ("README", "text", None), ("a.py", "code", "python"), ("a.tsx", "code", "typescript"),
     ("Makefile", "code", "make"), ("Dockerfile", "code", "dockerfile"), ("a.unknown", "text", None),
     ("no_suffix", "text", None)],
)  # fmt: skip
def test_the_name_tells_the_format(name: str, kind: str, language: str | None, tmp_path: Path) -> None:
    (tmp_path / name).write_text("x")
    document = parse(tmp_path / name)
    assert (document.text, document.kind, document.language, document.pages) == ("x", kind, language, ())
    assert is_current(document.parser)


@pytest.mark.parametrize(
    "error", [MissingExtra("pip install shout"), ModuleNotFoundError("No module named 'shout'")]
)
def test_a_format_of_ones_own_whose_library_is_missing_is_no_damaged_file(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for registry in ("_FORMATS", "_BY_NAME"):
        monkeypatch.setattr(parsers, registry, dict(getattr(parsers, registry)))

    def read(_: bytes) -> Document:
        raise error

    register(Format(name="shout", read=read, names=(".shout",)))
    (tmp_path / "a.shout").write_text("quiet")
    with pytest.raises(FormatNotInstalled, match=r"shout: what reads it is not installed: .*shout"):
        parse(tmp_path / "a.shout")


def test_a_format_of_ones_own_is_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in ("_FORMATS", "_BY_NAME"):
        monkeypatch.setattr(parsers, registry, dict(getattr(parsers, registry)))
    path = tmp_path / "a.shout"
    path.write_text("quiet")
    assert not is_registered(path)
    register(Format(name="shout", read=lambda content: Document(content.decode().upper()), names=(".shout",)))
    assert is_registered(path)
    assert (parse(path).text, parse(path).parser) == ("QUIET", "shout/1")
    register(Format(name="shout", read=lambda _: Document("!"), names=(".shout",), version=2))
    assert parse(path).parser == "shout/2"
    assert [is_current(name) for name in ("shout/2", "shout/1", "whisper/1", "")] == [
        True,
        False,
        False,
        False,
    ]
