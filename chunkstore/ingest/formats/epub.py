"""EPUB books: the pages of the spine in reading order, each as Markdown."""

import posixpath
from collections.abc import Iterator
from urllib.parse import unquote
from xml.etree import ElementTree as ET
from zipfile import ZipFile

from chunkstore.errors import UnreadableFile
from chunkstore.ingest.decoding import decoded
from chunkstore.ingest.document import Document
from chunkstore.ingest.formats.archive import opened, part, root
from chunkstore.ingest.formats.html import to_markdown
from chunkstore.ingest.formats.marking import blocks

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PAGES = frozenset({"application/xhtml+xml", "text/html", "application/x-dtbook+xml"})


def read(content: bytes) -> Document:
    """The text of the book without its table of contents. Raises UnreadableFile where it is protected."""
    archive = opened(content)
    package = _package_path(archive)
    pages = list(_spine(root(archive, package), posixpath.dirname(package)))
    if not pages:
        raise UnreadableFile("incomplete: its spine names no page")
    if locked := _encrypted(archive).intersection(pages):
        raise UnreadableFile(f"encrypted (DRM): {len(locked)} of its {len(pages)} pages cannot be read")
    text = blocks(to_markdown(decoded(part(archive, page))) for page in pages)
    if not text:
        raise UnreadableFile(f"no text: {len(pages)} pages of images; OCR is not done here")
    return Document(text + "\n", "markdown")


def _package_path(archive: ZipFile) -> str:
    for element in _elements(root(archive, _CONTAINER), "rootfile"):
        if path := element.get("full-path"):
            return path
    raise UnreadableFile("incomplete: its container names no package")


def _spine(package: ET.Element, folder: str) -> Iterator[str]:
    """The names of the archive's members that are pages of the book, in reading order."""
    items = {item.get("id", ""): item for item in _elements(package, "item")}
    for reference in _elements(package, "itemref"):
        item = items.get(reference.get("idref", ""))
        if item is None or item.get("media-type") not in _PAGES:
            continue
        if "nav" not in item.get("properties", "").split():
            yield posixpath.normpath(posixpath.join(folder, unquote(item.get("href", ""))))


def _encrypted(archive: ZipFile) -> set[str]:
    """The members that are encrypted; fonts often are, in books that anybody may read."""
    if _ENCRYPTION not in archive.namelist():
        return set()
    return {
        unquote(element.get("URI", ""))
        for element in _elements(root(archive, _ENCRYPTION), "CipherReference")
    }


def _elements(root: ET.Element, name: str) -> Iterator[ET.Element]:
    return (element for element in root.iter() if _local(element) == name)


def _local(element: ET.Element) -> str:
    return str(element.tag).rpartition("}")[2]
