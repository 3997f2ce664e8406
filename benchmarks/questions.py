"""Questions made from the documents themselves, each with the sentence that answers it known.

A question is asked in the words that set its answer apart from the rest of the documents, the rarest left
out, so that no chunk holds it as it stands; where a sentence says what something is or does, it asks that.
Each is asked in three ways, as people do: bare, and with its topic named, by the heading that the answer
stands under or by the title of the document.
"""

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from benchmarks.edits import Span, headings, sentences
from chunkstore.ingest.document import Document

WAYS = ("bare", "heading", "title")
"""The ways in which a question is asked: fields of `Question`."""

_WORD = re.compile(r"[^\W\d_][\w'’-]*[^\W_]|[\u3040-\u9fff]")
_DEFINES = re.compile(
    r"(?:The |An? )?(?!(?:It|This|That|These|Those|There|You|We|They|He|She|If|When)\b)"
    r"(?P<what>[^,.;:()]{3,50}?) (?P<verb>is|are|provides?|returns?|contains?|allows?|creates?|"
    r"specifies|means|controls?|describes?|represents?) (?P<rest>.{25,})",
    re.DOTALL,
)
_EMPTY = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "by", "can", "for", "from", "if", "in", "is", "it",
    "its", "not", "of", "on", "or", "that", "the", "this", "to", "when", "which", "will", "with",
})  # fmt: skip
_MARKUP = frozenset({"mod", "class", "func", "meth", "ref"})


class Question(msgspec.Struct, frozen=True):
    """What is asked, and where the answer stands: `documents[document].text[start:end]`."""

    bare: str
    heading: str
    title: str
    document: int
    start: int
    end: int


def questions(documents: Sequence[Document], count: int, seed: int = 0) -> list[Question]:
    """At most `count` questions, as many from one document as from another where they have enough.

    Of sentences of at least 8 words that stand in the documents once.
    """
    rng = random.Random(seed)
    found = [
        [span for span in sentences(document.text) if len(words(document.text[slice(*span)])) >= 8]
        for document in documents
    ]
    texts = [
        document.text[slice(*span)]
        for document, spans in zip(documents, found, strict=True)
        for span in spans
    ]
    times = Counter(texts)
    spread = Counter(word for text in texts for word in set(words(text)))
    for spans in found:
        rng.shuffle(spans)
    heads = [headings(document) for document in documents]
    made: list[Question] = []
    for number, (start, end) in _by_turns(found):
        text = documents[number].text
        asked = _asked(text[start:end], spread, rng) if times[text[start:end]] == 1 else None
        if asked is None:
            continue
        heading, title = _topics(documents[number], heads[number], start)
        made.append(
            Question(asked, " ".join([*heading, asked]), " ".join([*title, asked]), number, start, end)
        )
        if len(made) == count:
            break
    return made


def words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _by_turns(found: Sequence[Sequence[Span]]) -> Iterator[tuple[int, Span]]:
    for turn in range(max(map(len, found), default=0)):
        yield from ((number, spans[turn]) for number, spans in enumerate(found) if turn < len(spans))


def _topics(document: Document, heads: Sequence[tuple[int, int]], at: int) -> tuple[list[str], list[str]]:
    """At most four words of the nearest heading above, and of the topmost one that it stands under."""
    path: dict[int, int] = {}
    for start, level in heads:
        if start > at:
            break
        path = {higher: begin for higher, begin in path.items() if higher < level} | {level: start}
    if not path:
        return [], []
    return _named(document, path[max(path)]), _named(document, path[min(path)])


def _named(document: Document, start: int) -> list[str]:
    line = document.text[start:].split("\n", 1)[0]
    return [word for word in words(line) if word not in _EMPTY and word not in _MARKUP][:4]


def _asked(answer: str, spread: Counter[str], rng: random.Random) -> str | None:
    """`What does X return … ?` with three distinctive words of the rest, or five to seven words."""
    defines = _DEFINES.fullmatch(" ".join(answer.split()))
    if defines and any(word not in _EMPTY for word in words(defines["what"])):
        rest = _distinctive(defines["rest"], spread, 3)
        if len(rest) == 3:
            is_verb = defines["verb"] in {"is", "are", "means"}
            verb = [] if is_verb else [defines["verb"]]
            return (
                " ".join(["What", "is" if is_verb else "does", defines["what"].strip(), *verb, *rest]) + "?"
            )
    chosen = _distinctive(answer, spread, rng.randint(5, 7))
    return " ".join(chosen) if len(chosen) >= 5 else None


def _distinctive(text: str, spread: Counter[str], count: int) -> list[str]:
    """The words that the fewest sentences share, in their order, but for the rarest one of all."""
    found = [word for word in dict.fromkeys(words(text)) if word not in _EMPTY]
    rarest = sorted(found, key=lambda word: (spread[word], word))[1 : count + 1]
    return [word for word in found if word in rarest]
