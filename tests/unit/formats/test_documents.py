"""What holds for a document of every format: places, pages, sameness, time and space in proportion."""

import resource
import time
import zipfile
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import msgspec
import pytest

from chunkstore.errors import UnreadableFile
from chunkstore.ingest.chunking import Chunker
from chunkstore.ingest.document import Document
from chunkstore.ingest.formats.builtin import BUILTIN
from chunkstore.ingest.parsers import is_current, parse
from tests.unit.formats.fix_bad_files import edited
from tests.unit.formats.fix_files import FILES, parsed_as, read, refused_as

READ = [
    "calc.csv", "calc.xlsx", "chromium.html", "chromium.pdf", "impress.pdf", "impress.pptx", "jupyter.ipynb",
    "linearized.pdf", "mutt-alternative.eml", "mutt-attached.eml", "mutt.eml", "pandoc-epub2.epub",
    "pandoc.docx", "pandoc.epub", "pandoc.html", "pandoc.pptx", "pdflatex.pdf", "sources/letter.txt",
    "sources/book.md", "sources/table.fods", "unprintable.pdf", "writer.docx", "writer.pdf", "xelatex.pdf",
]  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_the_place_of_a_chunk_cut_out_of_the_text_is_the_chunk(name: str) -> None:
    document = read(name)
    chunks = list(Chunker(size=30)(document))
    assert "".join("".join(chunk.content.split()) for chunk in chunks) == "".join(document.text.split())
    for chunk in chunks:
        assert chunk.place is not None
        assert document.text[chunk.place.start : chunk.place.end] == chunk.content


@pytest.mark.parametrize("name", READ)
def test_pages_begin_in_order_inside_the_text(name: str) -> None:
    document = read(name)
    assert list(document.pages) == sorted(document.pages)
    assert document.pages[:1] in {(), (0,)}
    assert all(start <= len(document.text) for start in document.pages)


@pytest.mark.parametrize("name", READ)
def test_a_document_is_the_same_every_time_and_whole_when_sent_to_another_process(name: str) -> None:
    document = read(name)
    assert document == read(name)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(document), type=Document) == document
    assert is_current(document.parser)
    document.text.encode()


def test_every_format_is_tested_on_a_file_that_a_program_made() -> None:
    assert {read(name).parser for name in READ} >= {
        found.fingerprint for found in BUILTIN if found.name not in {"code", "json", "jsonl"}
    }


def test_chunks_of_a_pdf_know_their_page() -> None:
    pages = {chunk.place.page for chunk in Chunker(size=30)(read("writer.pdf")) if chunk.place}
    assert pages == {1, 2}


def sheet_with(rows: str) -> bytes:
    """A workbook of Calc with these rows at the end of its first sheet."""
    return edited(
        "calc.xlsx",
        "xl/worksheets/sheet1.xml",
        lambda xml: xml.replace("</sheetData>", f"{rows}</sheetData>"),
    )


def test_a_sheet_of_a_million_empty_rows_is_read_without_them(tmp_path: Path) -> None:
    empty = "".join(f'<row r="{number}"><c r="B{number}" s="1"/></row>' for number in range(100, 20_100))
    last = '<row r="1048576"><c r="A1048576" t="inlineStr"><is><t>the last</t></is></c></row>'
    text = parsed_as(tmp_path, "a.xlsx", sheet_with(empty + last)).text
    assert "| 2408 | 1 |\n| the last |\n" in text


def test_a_sheet_that_is_far_wider_than_its_text_is_refused(tmp_path: Path) -> None:
    wide = "".join(f'<row r="{number}"><c r="XFD{number}"/></row>' for number in range(100, 2_100))
    assert "a sheet of more than 20,000,000 cells" in refused_as(tmp_path, "a.xlsx", sheet_with(wide))


def archive_of(member: str, content: str, template: str) -> bytes:
    """The template, an archive that some program made, with that member."""
    made = BytesIO()
    with (
        zipfile.ZipFile(FILES / template) as source,
        zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, content if name == member else source.read(name))
    return made.getvalue()


def big(kind: str, size: int) -> bytes:
    """A file of that format with about so many paragraphs."""
    words = [
        f"Paragraph {number} of many, {number * 7919 % 10007} words, Größe, 漢字." for number in range(size)
    ]
    match kind:
        case "html":
            return ("<html><body>" + "".join(f"<h2>{n}</h2><p>{w}</p>" for n, w in enumerate(words))).encode()
        case "csv":
            return "".join(f"{n};{w}\n" for n, w in enumerate(words)).encode()
        case "json":
            return ("[" + ",".join(f'"{word}"' for word in words) + "]").encode()
        case "txt":
            return "\n\n".join(words).encode("utf-16-le")
        case "eml":
            body = "\n".join(words)
            return f"Subject: x\nFrom: a\nContent-Type: text/plain; charset=utf-8\n\n{body}".encode()
        case "docx":
            body = "".join(f"<w:p><w:r><w:t>{word}</w:t></w:r></w:p>" for word in words)
            space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
            document = f"<w:document {space}><w:body>{body}</w:body></w:document>"
            return archive_of("word/document.xml", document, "writer.docx")
        case _:
            raise AssertionError(kind)


@pytest.mark.parametrize(
    ("kind", "size"),
    [("html", 3_000), ("csv", 6_000), ("json", 10_000), ("txt", 20_000), ("eml", 10_000), ("docx", 150)],
)
def test_time_grows_in_proportion_to_the_file(kind: str, size: int, tmp_path: Path) -> None:
    small, large = tmp_path / f"small.{kind}", tmp_path / f"large.{kind}"
    small.write_bytes(big(kind, size))
    large.write_bytes(big(kind, 8 * size))
    parse(small)
    assert min(seconds(large) for _ in range(2)) < 20 * max(0.01, min(seconds(small) for _ in range(3)))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b"[/*" * 100_000),
        ("a.json", b'["\\' * 100_000),
        ("a.json", b"[1" + b", " * 200_000),
        ("a.html", b"<title" * 100_000 + b"<p>x"),
        ("a.html", b"<table><tr><td>" * 300 + b"x" * 100_000),
        ("a.html", b"<p>x" + b"<!--" * 80_000),
        ("a.html", b"<?xml <html>" + b"<a " * 100_000),
        ("a.html", b"<?xml <html>" + b'<a "' * 80_000),
        ("a.html", b"<?xml <html>" + b"<!--" * 80_000),
        ("a.html", b"<?xml <html>" + b"<![CDATA[" * 40_000),
        ("a.txt", b"<!--" * 100_000),
        ("a.txt", b"<meta " * 100_000 + b"\xe4"),
        ("a.txt", b"a:b\n " * 100_000),
        ("a.csv", b'"' * 300_001),
        ("a.csv", b"," * 300_000 + b"x\n"),
        ("a.eml", b"Subject: " + b"=?utf-8?q?a?= " * 10_000 + b"\nFrom: a\n\nx"),
        ("a.eml", b"From: " + b"(" * 10_000 + b"\nSubject: x\n\nx"),
        ("a.eml", b"Subject: x\nFrom: a\n\n" + b"=" * 300_000 + b"x"),
        ("a.pdf", b"%PDF-1.7\n" + b"1 0 obj\n" * 40_000 + b"%%EOF"),
    ],
)
def test_no_text_of_a_third_of_a_megabyte_takes_seconds(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    begun = time.process_time()
    with suppress(UnreadableFile):
        parse(path)
    assert time.process_time() - begun < 3


def seconds(path: Path) -> float:
    """Processor time for reading the file."""
    begun = time.process_time()
    parse(path)
    return time.process_time() - begun


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    bomb = tmp_path / "a.docx"
    with (
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("word/document.xml", "w") as member,
    ):
        for _ in range(60):
            member.write(bytes(1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    with pytest.raises(Exception, match="would unpack to 62,914,560"):
        parse(bomb)
    assert time.process_time() - begun < 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30 * 1024
