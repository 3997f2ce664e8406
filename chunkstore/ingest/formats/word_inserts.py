"""Documents that a program has put whole into a Word document (`altChunk`), until Word saves it anew."""

import posixpath
import re
from collections.abc import Mapping
from zipfile import ZipFile

from chunkstore.errors import UnreadableFile
from chunkstore.ingest.decoding import decoded
from chunkstore.ingest.formats import mail
from chunkstore.ingest.formats.archive import part, root
from chunkstore.ingest.formats.html import to_markdown
from chunkstore.ingest.formats.marking import plain

_MARK = "\ue000{}\ue000"
_MARKED = re.compile(_MARK.format("([^\ue000]+)"))


def marked(relation: str) -> str:
    """What stands in the document's text for what it inserts by that relation."""
    return _MARK.format(relation)


def with_inserts(text: str, archive: ZipFile, main: str) -> str:
    """The text of the part `main`, with pages of HTML, archived ones and plain texts where they are inserted.

    Raises UnreadableFile where something else is: a document in the document is not opened.
    """
    if not _MARKED.search(text):
        return text
    targets = _targets(archive, main)
    return _MARKED.sub(
        lambda found: _inserted(archive, targets[found[1]]) if found[1] in targets else found[0], text
    )


def _targets(archive: ZipFile, main: str) -> Mapping[str, str]:
    """The members of the archive that the part refers to, by the name of the relation."""
    folder, name = posixpath.split(main)
    return {
        relation.get("Id", ""): posixpath.normpath(
            posixpath.join("/", folder, relation.get("Target", ""))
        ).lstrip("/")
        for relation in root(archive, f"{folder}/_rels/{name}.rels")
    }


def _inserted(archive: ZipFile, name: str) -> str:
    content = part(archive, name)
    match name.rpartition(".")[2].lower():
        case "htm" | "html" | "xhtml":
            return to_markdown(decoded(content))
        case "mht" | "mhtml":
            return mail.read(content).text.strip()
        case "txt":
            return plain(decoded(content)).strip()
        case _:
            raise UnreadableFile(
                f"its part {name!r} is a document inside it, which is not opened: save it anew in Word"
            )
