"""Tells what a file is by its content: signatures, the members of a ZIP archive, the first words of a text.

Names lie: a PDF is called `.txt`, a page of HTML `.doc`, a picture `.md`.
"""

import re

import msgspec

from chunkstore.ingest.decoding import is_text, without_mark
from chunkstore.ingest.formats.archive import opened, part

_HEAD_BYTES = 4_096

_OTHERS = {
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\0": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"\x89PNG\r\n": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF87a": "a GIF image",
    b"GIF89a": "a GIF image",
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
    b"BM": "a BMP image",
    b"8BPS": "a Photoshop image",
    b"OggS": "an Ogg recording",
    b"ID3": "an MP3 recording",
    b"fLaC": "a FLAC recording",
    b"\x1aE\xdf\xa3": "a Matroska film",
    b"\x7fELF": "a program",
    b"MZ": "a Windows program",
    b"\xcf\xfa\xed\xfe": "a macOS program",
    b"\xca\xfe\xba\xbe": "a Java class or macOS program",
    b"\0asm": "a WebAssembly program",
    b"!<arch>\n": "an archive of a linker or a package",
    b"SQLite format 3\0": "an SQLite database",
    b"PAR1": "a Parquet table",
    b"\x89HDF": "an HDF5 file",
    b"wOFF": "a font",
    b"wOF2": "a font",
    b"OTTO": "a font",
    b"\0\x01\0\0": "a font or a database",
    b"%!PS": "a PostScript document",
    b"{\\rtf": "a Rich Text document (RTF): save it as .docx",
    b"AT&TFORM": "a DjVu document",
}
_WORDLIKE = frozenset({b"BM", b"MZ", b"ID3", b"BZh", b"PAR1", b"OTTO", b"8BPS"})
"""Signatures that a text may begin with, believed only where the head is no text."""

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OLE_STREAMS = {
    "EncryptedPackage": "encrypted: a password is needed to read it",
    "WordDocument": "a Word 97-2003 document, which is not read here: save it as .docx",
    "Workbook": "an Excel 97-2003 workbook, which is not read here: save it as .xlsx",
    "PowerPoint Document": "a PowerPoint 97-2003 presentation, which is not read here: save it as .pptx",
    "__substg1.0_": "an Outlook message, which is not read here: save it as .eml",
}
"""What office programs wrote before 2007, and encrypt documents in since, by the name of a stream in it."""

_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_ZIP_PARTS = {"word/document.xml": "docx", "ppt/presentation.xml": "pptx", "xl/workbook.xml": "xlsx"}
_ZIP_FOLDERS = {"word/": "docx", "ppt/": "pptx", "xl/": "xlsx"}
_FIRST_MEMBERS = (b"[Content_Types].xml", b"_rels/", b"docProps/", b"word/", b"ppt/", b"xl/", b"mimetype")

_HTML = re.compile(
    rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.{0,1000}?-->\s*)*<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL
)
_HEADER_LINE = re.compile(rb"[!-9;-~]{1,76}:[ \t]?[^\r\n]*\r?\n(?:[ \t][^\r\n]*\r?\n)*")
_MAIL_HEADERS = frozenset({b"from", b"date", b"subject", b"message-id", b"mime-version", b"received", b"to"})
_FROM_PROGRAMS = frozenset({b"message-id", b"mime-version", b"received"})
_LONGEST_HEADER = 1_000
_NOTEBOOK = re.compile(rb'"nbformat"\s*:\s*\d')


class Sniffed(msgspec.Struct, frozen=True):
    """What a content is: the name of a format that is read here, or what it is that is not read."""

    format: str = ""
    refusal: str = ""


_UNKNOWN = Sniffed()


def sniff(content: bytes) -> Sniffed:
    """What the content is beyond doubt; nothing where it may be any text.

    Raises UnreadableFile for a ZIP archive that is damaged, encrypted or a bomb.
    """
    if b"%PDF-" in content[:1_024] and (
        content.startswith(b"%PDF-")
        or not is_text(content[:_HEAD_BYTES])
        or b"startxref" in content[-_HEAD_BYTES:]
    ):
        return Sniffed("pdf")
    if content.startswith(_ZIP):
        return _in_archive(content)
    if content.startswith(_OLE):
        return Sniffed(refusal=_in_ole(content))
    if other := _other(content[:_HEAD_BYTES]):
        return Sniffed(refusal=other)
    return _in_text(without_mark(content[: 2 * _HEAD_BYTES]), content[-2 * _HEAD_BYTES :])


def may_be_read(head: bytes) -> bool:
    """True where a file that begins so is text or of a format that is read here; a ZIP archive may be."""
    if head.startswith(_ZIP):
        return head[30:].startswith(_FIRST_MEMBERS)
    if head.startswith(b"%PDF-"):
        return True
    return is_text(head) and not head.startswith(_OLE) and not _other(head)


def _other(head: bytes) -> str:
    if head[257:262] == b"ustar":
        return "a tar archive, which is not read here"
    if head[:4] == b"RIFF" and head[8:12] in {b"WAVE", b"AVI ", b"WEBP"}:
        return "a picture, recording or film (RIFF), which is not read here"
    if head[4:8] == b"ftyp":
        return "a film, recording or picture (MP4, HEIF), which is not read here"
    for start, kind in _OTHERS.items():
        if head.startswith(start) and not (start in _WORDLIKE and is_text(head)):
            return kind if ":" in kind else f"{kind}, which is not read here"
    return ""


def _in_archive(content: bytes) -> Sniffed:
    archive = opened(content)
    names = archive.namelist()
    kind = part(archive, "mimetype")[:100] if "mimetype" in names[:1] else b""
    if kind.startswith(b"application/epub"):
        return Sniffed("epub")
    if kind.startswith(b"application/vnd.oasis.opendocument"):
        return Sniffed(
            refusal="an OpenDocument file, which is not read here: save it as .docx, .xlsx or .pptx"
        )
    for name in names:
        if found := _ZIP_PARTS.get(name):
            return Sniffed(found)
    for name in names:
        if name.endswith((".xml", ".bin")) and (found := _ZIP_FOLDERS.get(name.partition("/")[0] + "/")):
            return Sniffed(found)
    if "META-INF/container.xml" in names:
        return Sniffed("epub")
    return Sniffed(refusal=f"a ZIP archive of {len(names):,} members, which is not read here")


def _in_ole(content: bytes) -> str:
    for stream, meaning in _OLE_STREAMS.items():
        if stream.encode("utf-16-le") in content:
            return meaning
    return "a document of an old office program, which is not read here"


def _in_text(head: bytes, tail: bytes) -> Sniffed:
    if _HTML.match(head):
        return Sniffed("html")
    if head.lstrip()[:1] == b"{" and (_NOTEBOOK.search(head) or _NOTEBOOK.search(tail)):
        return Sniffed("notebook")  # the programs that write notebooks put it last
    return Sniffed("mail") if _is_mail(head) else _UNKNOWN


def _is_mail(head: bytes) -> bool:
    """True where the text begins with header lines, at least two of them of an e-mail, and an empty line.

    A memo begins so too: a header that programs write, or the address of a sender, tells an e-mail.
    """
    found: dict[bytes, bytes] = {}
    position = 0
    while line := _HEADER_LINE.match(head, position):
        name, _, value = line[0].partition(b":")
        found[name.lower()] = value
        position = line.end()
    cut_short = len(head) >= _HEAD_BYTES and position > len(head) - _LONGEST_HEADER
    ended = head.startswith((b"\n", b"\r\n"), position) or cut_short
    sent = not found.keys().isdisjoint(_FROM_PROGRAMS) or b"@" in found.get(b"from", b"")
    return ended and sent and len(found.keys() & _MAIL_HEADERS) >= 2
