"""Rewrites the XML of a Word document: what mammoth passes over, text and all, as what it reads."""

import re
from collections.abc import Iterator
from io import BytesIO
from xml.etree import ElementTree as ET
from zipfile import ZipFile

from chunkstore.ingest.formats.archive import part, root
from chunkstore.ingest.formats.word_inserts import marked

_NAMESPACES = (
    "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}",
    "{http://purl.oclc.org/ooxml/wordprocessingml/main}",
)
_READ_AS = {
    **dict.fromkeys(("bdo", "dir", "fldSimple", "ruby", "rubyBase"), "smartTag"),
    "cr": "br",
    "ptab": "tab",
}
"""By what mammoth reads of it: the content of a smart tag, a line break, a tab."""
_INSERT = "altChunk"
_PASSED_OVER = re.compile(rf"[<:](?:{'|'.join([_INSERT, *_READ_AS])})[\s/>]".encode())


def rewritten(content: bytes, archive: ZipFile) -> bytes:
    """The document, with the parts that hold such elements written anew; the same where there are none."""
    changed = dict(_changed_parts(archive))
    if not changed:
        return content
    document = BytesIO()
    with ZipFile(document, "w") as target:
        for name in archive.namelist():
            if name.endswith((".xml", ".rels")):  # pictures are not read
                target.writestr(name, changed.get(name) or part(archive, name))
    return document.getvalue()


def _changed_parts(archive: ZipFile) -> Iterator[tuple[str, bytes]]:
    for name in archive.namelist():
        if name.endswith(".xml") and _PASSED_OVER.search(part(archive, name)):
            document = root(archive, name)
            for element in document.iter():
                _rewrite(element)
            yield name, ET.tostring(document, "utf-8")


def _rewrite(element: ET.Element) -> None:
    space, brace, local = element.tag.partition("}")
    namespace = space + brace
    if namespace not in _NAMESPACES:
        return
    if local == _INSERT:
        relation = next((value for name, value in element.items() if name.endswith("}id")), "")
        element.clear()
        element.tag = f"{namespace}p"
        run = ET.SubElement(element, f"{namespace}r")
        ET.SubElement(run, f"{namespace}t").text = marked(relation)
    elif local in _READ_AS:
        element.tag = namespace + _READ_AS[local]
