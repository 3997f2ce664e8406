"""What a parser makes of a file, and a chunker cuts."""

from typing import Literal

import msgspec

Kind = Literal["text", "markdown", "code"]


class Document(msgspec.Struct, frozen=True):
    """The text of a file, character by character as it stands there but for a byte order mark.

    Places are offsets into `text`. `language` is the programming language of source code.
    """

    text: str
    kind: Kind = "text"
    language: str | None = None
