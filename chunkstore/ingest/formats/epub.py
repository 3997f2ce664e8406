"""EPUB books: the pages of the spine in reading order, each as Markdown."""

import posixpath
from collections.abc import Iterator, Mapping
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
_PAGES = frozenset(
    {
        *("application/xhtml+xml", "text/html", "application/x-dtbook+xml"),
        *("text/x-oeb1-document", "application/xml", "text/xml"),
    }
)


def read(content: bytes) -> Document:
    """The text of the book without its table of contents. Raises UnreadableFile where it is protected."""
    archive = opened(content)
    package = _package_path(archive)
    spine = list(_spine(root(archive, package)))
    if not spine:
        raise UnreadableFile("incomplete: its spine names no page")
    folder = posixpath.dirname(package)
    pages = [_member(folder, item) for item in spine if item.get("media-type") in _PAGES]
    if locked := _encrypted(archive).intersection(pages):
        raise UnreadableFile(f"encrypted (DRM): {len(locked)} of its {len(pages)} pages cannot be read")
    text = blocks(to_markdown(decoded(part(archive, page))) for page in pages)
    if not text:
        raise UnreadableFile(f"no text: {len(spine)} pages of images; OCR is not done here")
    return Document(text + "\n", "markdown")


def _package_path(archive: ZipFile) -> str:
    for element in _elements(root(archive, _CONTAINER), "rootfile"):
        if path := element.get("full-path"):
            return path
    raise UnreadableFile("incomplete: its container names no package")


def _spine(package: ET.Element) -> Iterator[ET.Element]:
    """The items of the manifest that are pages of the book, in reading order."""
    items = {item.get("id", ""): item for item in _elements(package, "item")}
    for reference in _elements(package, "itemref"):
        item = items.get(reference.get("idref", ""))
        if item is not None and "nav" not in item.get("properties", "").split():
            yield _as_page(item, items)


def _as_page(item: ET.Element, items: Mapping[str, ET.Element]) -> ET.Element:
    """The page that stands for the item where that is none itself, as a picture has one."""
    for _ in items:  # a ring of fallbacks has an end
        if item.get("media-type") in _PAGES:
            break
        item = items.get(item.get("fallback", ""), item)
    return item


def _member(folder: str, item: ET.Element) -> str:
    """The name of the archive's member that the item is."""
    return posixpath.normpath(posixpath.join(folder, unquote(item.get("href", ""))))


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
