"""What a format is: a name and version, how its bytes are read, and which file names promise it."""

from collections.abc import Callable

import msgspec

from chunkstore.ingest.document import Document


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """One format of files.

    `read` makes a document of a file's bytes; it raises UnreadableFile for bytes that are none of
    its format, MissingExtra where its library is not installed. Raise `version` whenever `read` gives
    another text than before: files that the older version read are then noticed.
    """

    name: str
    read: Callable[[bytes], Document]
    names: tuple[str, ...] = ()
    """File names and ends of them (`.rst`) in small letters that promise this format."""
    version: int = 1
    title: str = ""
    """What people call such a file."""
    library: str = ""
    """What reads it, and in `licence` under which terms."""
    licence: str = ""
    extra: str = ""
    """The optional part of chunkstore that brings the library; empty where none is needed."""
    is_text: bool = False
    """True where the bytes are text in some encoding, so that an empty file is an empty text."""

    @property
    def fingerprint(self) -> str:
        """The format's name and version, as in `pdf/1`."""
        return f"{self.name}/{self.version}"
