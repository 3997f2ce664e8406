"""Files read as text: encodings, formats by name, and the reasons why a file is refused."""

import codecs
import gzip
import os
from pathlib import Path

import pytest

from chunkstore.errors import UnreadableFile
from chunkstore.ingest import parsers
from chunkstore.ingest.decoding import decoded
from chunkstore.ingest.document import Document
from chunkstore.ingest.formats.format import Format
from chunkstore.ingest.formats.sniffing import may_be_read
from chunkstore.ingest.parsers import is_current, is_registered, parse, register

GERMAN = "Größere Straßenbäume überdauern häufig längere Dürren. " * 20
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 20
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。" * 20
FRENCH = "L'été dernier, à Nîmes, Zoé a goûté des crêpes où qu'elle aille. " * 20


def refused(path: Path) -> str:
    with pytest.raises(UnreadableFile) as caught:
        parse(path)
    return str(caught.value)


# --- encodings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "encoding"),
    [(GERMAN, "utf-8"), (GERMAN, "latin-1"), (FRENCH, "cp1252"), (RUSSIAN, "cp1251"), (RUSSIAN, "koi8-r"),
     (JAPANESE, "shift_jis"), (JAPANESE, "euc_jp"), (JAPANESE, "utf-8")],
)  # fmt: skip
def test_a_text_is_read_whatever_its_encoding(text: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(text.encode(encoding))
    assert parse(path).text == text


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
     (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be")],
)  # fmt: skip
def test_a_byte_order_mark_tells_the_encoding_and_is_no_part_of_the_text(mark: bytes, encoding: str) -> None:
    assert decoded(mark + "Grüße 😀".encode(encoding)) == "Grüße 😀"


def test_the_encoding_is_told_even_after_a_long_preface_in_ascii() -> None:
    text = "plain words in English, line after line\n" * 10_000 + GERMAN
    assert decoded(text.encode("latin-1")) == text


def test_nothing_but_the_mark_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\r\ntwo\rthree\n\n \x0c\x1b[0m")
    assert parse(path).text == "one\r\ntwo\rthree\n\n \x0c\x1b[0m"


def test_an_empty_file_is_an_empty_text(tmp_path: Path) -> None:
    (tmp_path / "empty.md").touch()
    assert parse(tmp_path / "empty.md").text == ""


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"words\0words", "NUL"),
        (b"%PDF-1.7 all in ASCII", "a PDF"),
        (b"PK\x03\x04....", "a ZIP"),
        (gzip.compress(b"x", mtime=0), "gzip"),
        (b"\x01\x02\x03\x04\x05\x06\x07\x08" * 50, "control characters"),
        (codecs.BOM_UTF16_LE + b"a\0b", "not valid utf-16-le"),
        (codecs.BOM_UTF16_LE + "a\0b".encode("utf-16-le"), "binary"),
        (codecs.BOM_UTF16_LE + b"\x00\xd8a\0", "not valid utf-16-le"),
        (bytes(range(1, 256)) * 40, ""),
    ],
)
def test_what_is_no_text_is_refused_with_the_reason(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_bytes(content)
    assert reason in refused(tmp_path / "file.txt")


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
