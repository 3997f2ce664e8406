"""What a parser makes of a file, and a chunker cuts."""

from typing import Literal

import msgspec

Kind = Literal["text", "markdown", "code"]


class Document(msgspec.Struct, frozen=True):
    """The text of a file: as it stands there but for a byte order mark, or Markdown made of its structure.

    Places are offsets into `text`. `language` is the programming language of source code. `pages` are
    the offsets at which pages (slides, sheets) begin, the first of them 0; empty where there are none.
    `parser` names what read it and that parser's version, as in `pdf/1`.
    """

    text: str
    kind: Kind = "text"
    language: str | None = None
    pages: tuple[int, ...] = ()
    parser: str = ""
