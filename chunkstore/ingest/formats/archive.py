"""ZIP archives that are office documents and books: opened only when they unpack to a bounded size.

All bounds hold before anything is unpacked; archives inside an archive are never opened. XML with a
document type is refused, so no entity is ever expanded or fetched.
"""

import zlib
from io import BytesIO
from xml.etree import ElementTree as ET
from xml.parsers import expat
from zipfile import BadZipFile, ZipFile

from chunkstore.errors import UnreadableFile

MAX_MEMBERS = 10_000
MAX_UNPACKED_BYTES = 512 * 1024 * 1024
MAX_RATIO = 200
"""Unpacked to packed, above `_SMALL_BYTES`: XML packs to a twentieth, a bomb to a thousandth."""
_SMALL_BYTES = 8 * 1024 * 1024
_ENCRYPTED = 0x1
_XML_ENDS = (".xml", ".rels", ".opf", ".ncx")

_DAMAGED = (BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError, ValueError)
"""What zipfile raises for members that cannot be unpacked."""


def opened(content: bytes) -> ZipFile:
    """The archive. Raises UnreadableFile where it is damaged, encrypted or unpacks to too much."""
    try:
        archive = ZipFile(BytesIO(content))
    except (BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise UnreadableFile(f"a ZIP archive or office document, truncated or damaged: {error}") from error
    _bounded(archive, len(content))
    return archive


def _bounded(archive: ZipFile, packed: int) -> None:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise UnreadableFile(f"a ZIP archive of {len(members):,} members; at most {MAX_MEMBERS:,} are read")
    unpacked = sum(member.file_size for member in members)
    if unpacked > MAX_UNPACKED_BYTES or (unpacked > _SMALL_BYTES and unpacked > MAX_RATIO * packed):
        raise UnreadableFile(
            f"its {packed:,} bytes would unpack to {unpacked:,}; a document unpacks to at most "
            f"{MAX_UNPACKED_BYTES:,}, and {MAX_RATIO} times its size"
        )
    if any(member.flag_bits & _ENCRYPTED for member in members):
        raise UnreadableFile("encrypted: a password is needed to read it")


def part(archive: ZipFile, name: str) -> bytes:
    """The member of that name, unpacked. Raises UnreadableFile where it is missing or damaged."""
    try:
        return archive.read(name)
    except KeyError:
        raise UnreadableFile(f"incomplete: it has no part {name!r}") from None
    except _DAMAGED as error:
        raise UnreadableFile(f"its part {name!r} is damaged: {error}") from error


def xml_part(archive: ZipFile, name: str) -> bytes:
    """The XML member of that name. Raises UnreadableFile where it holds a document type as well."""
    content = part(archive, name)
    refuse_document_type(content, name)
    return content


def root(archive: ZipFile, name: str) -> ET.Element:
    """The root element of the XML member of that name. Raises UnreadableFile as `xml_part` does."""
    try:
        return ET.fromstring(xml_part(archive, name))  # noqa: S314 - no document type, so no entity
    except ET.ParseError as error:
        raise UnreadableFile(f"its part {name!r} is no XML: {error}") from error


def checked(content: bytes, needed: str) -> ZipFile:
    """The archive, with the part `needed` in it and every XML part of it unpacked and looked at once."""
    archive = opened(content)
    names = archive.namelist()
    if needed not in names:
        raise UnreadableFile(f"incomplete: it has no part {needed!r}")
    for name in names:
        if name.lower().endswith(_XML_ENDS):
            xml_part(archive, name)
    return archive


def refuse_strict(archive: ZipFile, name: str) -> None:
    """Raises UnreadableFile where the part names its elements as the strict kind of Open XML does."""
    if "purl.oclc.org/ooxml" in root(archive, name).tag:
        raise UnreadableFile(
            "of the kind Strict Open XML, which is not read here: save it as the ordinary kind"
        )


class _RootReached(Exception):
    pass


def refuse_document_type(content: bytes, name: str) -> None:
    """Raises UnreadableFile where XML declares a document type, in which entities could stand."""

    def refuse(*_: object) -> None:
        raise UnreadableFile(f"its part {name!r} declares a document type (DTD), which is refused")

    def end(*_: object) -> None:
        raise _RootReached

    reader = expat.ParserCreate()
    reader.StartDoctypeDeclHandler = refuse
    reader.StartElementHandler = end
    try:
        reader.Parse(content, True)  # noqa: FBT003
    except _RootReached:
        pass
    except expat.ExpatError as error:
        raise UnreadableFile(f"its part {name!r} is no XML: {error}") from error
