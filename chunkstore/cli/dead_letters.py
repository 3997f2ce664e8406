"""Commands on chunks that consumers gave up on: list, show, retry, discard."""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from textwrap import indent, shorten
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from chunkstore.cli.app import dead_letters_command
from chunkstore.cli.codes import Exit
from chunkstore.cli.options import FLAG, HERE, Json, Where, Yes
from chunkstore.cli.output import age, print_json, print_line, print_pairs, print_table, progress, say

if TYPE_CHECKING:
    from chunkstore.collection import Collection
    from chunkstore.dead_letters import FoundDeadLetter
    from chunkstore.store import ChunkStore

State = Literal["open", "discarded"]

OneCollection = Annotated[
    str | None, Parameter(name=("--collection", "-c"), help="Of this collection alone; of all unless given.")
]
OneModel = Annotated[
    str | None, Parameter(name=("--model", "-m"), help="Of this model alone; of all unless given.")
]
Ids = Annotated[list[int], FLAG, Parameter(help="Ids of chunks, as `dead-letters list` shows them.")]
All = Annotated[
    bool, FLAG, Parameter(name="--all", help="Every open one, of the collection and the model where given.")
]

_ERROR = 60


@dead_letters_command(name="list")
async def list_letters(
    *,
    collection: OneCollection = None,
    model: OneModel = None,
    state: Annotated[State | None, Parameter(help="In this state alone; in both unless given.")] = None,
    json: Json = False,
    where: Where = HERE,
) -> None:
    """List the chunks that consumers gave up on, oldest first, and why.

    An open one keeps its file at the version before. A discarded one does not: versions become active
    without that chunk.

    For example:

        chunkstore dead-letters list
        chunkstore dead-letters list --collection notes --state open
        chunkstore dead-letters list --json | jq '.[].error'
    """
    async with where.store() as store:
        found = await _find(store, collection, model, state=state)
    if json:
        print_json(found)
        return
    if not found:
        say("no dead letters: consumers gave nothing up")
        return
    print_table(
        ("id", "collection", "key", "version", "chunk", "model", "state", "attempts", "failed", "error"),
        [
            (
                str(letter.chunk_id),
                letter.collection,
                letter.key,
                letter.version,
                letter.ordinal,
                letter.model,
                letter.state,
                letter.attempts,
                f"{age(letter.failed_at)} ago",
                shorten(letter.error, _ERROR, placeholder=" …"),
            )
            for letter in found
        ],
    )
    counted = Counter(letter.state for letter in found)
    say(f"{counted['open']:,} open, {counted['discarded']:,} discarded")
    say("see one with `dead-letters show ID`, then `retry` it, or `discard` it to go on without it")


@dead_letters_command(name="show")
async def show_letter(
    chunk: Annotated[int, Parameter(name="ID", help="The chunk's id, as `dead-letters list` shows it.")],
    /,
    *,
    collection: OneCollection = None,
    model: OneModel = None,
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Show the whole error and the chunk's text; for every model that gave the chunk up.

    For example:

        chunkstore dead-letters show 4711
        chunkstore dead-letters show 4711 --json | jq -r '.[0].content'
    """
    from chunkstore import dead_letters
    from chunkstore.model import ChunkId

    async with where.store() as store:
        found = await _find(store, collection, model, ids=[chunk])
        content = await dead_letters.content(store.database, ChunkId(chunk))
    if json:
        from chunkstore.cli.shapes import ShownDeadLetter

        print_json([ShownDeadLetter.of(letter, content) for letter in found])
        return
    for letter in found:
        print_pairs(
            [
                ("chunk id", str(letter.chunk_id)),
                ("file", f"{letter.key} (collection {letter.collection})"),
                ("stands at", _where(letter)),
                ("model", letter.model),
                ("state", letter.state),
                ("attempts", letter.attempts),
                ("failed", f"{letter.failed_at.astimezone():%Y-%m-%d %H:%M}, {age(letter.failed_at)} ago"),
            ]
        )
        print_line("error")
        print_line(indent(letter.error.strip(), "    "))
        print_line()
    print_line("text")
    print_line(indent("" if content is None else content.content.strip(), "    "))


@dead_letters_command(name="retry")
async def retry_letters(
    ids: Ids = [],  # noqa: B006 - never changed; cyclopts shows no default that is made in the call
    /,
    *,
    every: All = False,
    collection: OneCollection = None,
    model: OneModel = None,
    json: Json = False,
    where: Where = HERE,
) -> Exit:
    """Have chunks embedded again; discarded ones too, where their id is given.

    They are logged again, and embedded by whichever consumer runs or comes.

    For example:

        chunkstore dead-letters retry 4711 4712
        chunkstore dead-letters retry --all --model minilm
        chunkstore consume --drain
    """

    async def retry(files: "Collection", letter: "FoundDeadLetter") -> None:
        await files.retry(letter.chunk_id, letter.model)

    async with where.store() as store:
        found = await _chosen(store, ids, collection, model, every=every)
        results = await _each(store, found, retry, "retried")
    return _report(found, results, "retried", "consumers will try them again", json=json)


@dead_letters_command(name="discard")
async def discard_letters(
    ids: Ids = [],  # noqa: B006
    /,
    *,
    every: All = False,
    collection: OneCollection = None,
    model: OneModel = None,
    yes: Yes = False,
    json: Json = False,
    where: Where = HERE,
) -> Exit:
    """Go on without chunks: their versions become active, and searches do not find these chunks.

    A later `retry` takes it back. With `--all` it asks first.

    For example:

        chunkstore dead-letters discard 4711
        chunkstore dead-letters discard --all --collection notes --yes
    """
    from chunkstore.cli.asking import confirmed

    async def discard(files: "Collection", letter: "FoundDeadLetter") -> None:
        if letter.state == "open":
            await files.discard(letter.chunk_id, letter.model)

    async with where.store() as store:
        found = await _chosen(store, ids, collection, model, every=every)
        if every and found and not await confirmed(f"Go on without {_counted(found)}?", yes=yes):
            say("none was discarded")
            return Exit.PROBLEM
        results = await _each(store, found, discard, "discarded")
    return _report(found, results, "discarded", "a projector makes their versions active", json=json)


async def _find(
    store: "ChunkStore",
    collection: str | None,
    model: str | None,
    *,
    state: State | None = None,
    ids: Sequence[int] | None = None,
) -> "list[FoundDeadLetter]":
    from chunkstore import dead_letters
    from chunkstore.cli.models import name_of
    from chunkstore.model import ChunkId

    if collection is not None:
        await store.collection(collection)  # a name that is wrong must not look like good news
    return await dead_letters.find(
        store.database,
        collection=collection,
        model=None if model is None else name_of(model),
        state=state,
        chunks=None if ids is None else [ChunkId(chunk) for chunk in ids],
    )


async def _chosen(
    store: "ChunkStore", ids: Sequence[int], collection: str | None, model: str | None, *, every: bool
) -> "list[FoundDeadLetter]":
    from chunkstore.errors import InvalidInput

    if every == bool(ids):
        raise InvalidInput("ids", list(ids), "ids as `dead-letters list` shows them, or --all, not both")
    return await _find(store, collection, model, state="open" if every else None, ids=ids or None)


async def _each(
    store: "ChunkStore",
    found: "Sequence[FoundDeadLetter]",
    act: "Callable[[Collection, FoundDeadLetter], Awaitable[None]]",
    done: str,
) -> list[str]:
    """What became of each."""
    from chunkstore.errors import UnknownDeadLetter

    results: list[str] = []
    with progress() as bar:
        row = bar.add_task("dead letters", total=len(found))
        for letter in found:
            try:
                await act(await store.collection(letter.collection), letter)
                results.append(done)
            except UnknownDeadLetter:
                results.append("gone: somebody was faster")
            bar.advance(row)
    return results


def _report(
    found: "Sequence[FoundDeadLetter]", results: Sequence[str], done: str, then: str, *, json: bool
) -> Exit:
    if json:
        from chunkstore.cli.shapes import SettledDeadLetter

        print_json([SettledDeadLetter.of(*pair) for pair in zip(found, results, strict=True)])
    elif not found:
        say("no open dead letters, so nothing was done")
    else:
        print_table(
            ("id", "collection", "key", "model", "result"),
            [
                (str(letter.chunk_id), letter.collection, letter.key, letter.model, result)
                for letter, result in zip(found, results, strict=True)
            ],
        )
        say(f"{results.count(done):,} {done}: {then}")
    return Exit.OK if all(result == done for result in results) else Exit.PROBLEM


def _where(letter: "FoundDeadLetter") -> str:
    if letter.version is None:
        return "in no version that is kept"
    return f"version {letter.version}, chunk {letter.ordinal}"


def _counted(found: "Sequence[FoundDeadLetter]") -> str:
    return "1 chunk" if len(found) == 1 else f"{len(found):,} chunks"
