"""`dead-letters`: what consumers gave up on is listed, shown, taken back and gone on without."""

from typing import Any

import anyio
import pytest

from chunkstore.errors import InvalidInput
from chunkstore.model import Chunk
from chunkstore.store import ChunkStore
from consumers.embedding import EmbeddingConsumer
from projections.projector import Projector
from tests.cli.fix_cli import Cli
from tests.faults.models import BAD, MODEL, Tripping

LIST = ("dead-letters", "list")


def _trip(*_: Any) -> Any:
    raise InvalidInput("text", "this one", "a text without [bold]poison[/bold] in it")


@pytest.fixture
def given_up(cli: Cli, dsn: str, schema: str) -> Cli:
    """The command on a store where one chunk of three in `notes` and the only one in `mail` were given up."""

    async def fill() -> None:
        async with await ChunkStore.open(dsn, schema=schema) as store:
            notes = await store.collection("notes", model=MODEL)
            mail = await store.collection("mail", model=MODEL)
            await notes.append("a.md", [Chunk("one"), Chunk(f"two {BAD}"), Chunk("three")])
            await mail.append("b.eml", [Chunk(f"dear {BAD}")])
            await EmbeddingConsumer(store, Tripping(_trip)).run(drain=True)
            await Projector(store, MODEL.name).run(drain=True)

    anyio.run(fill)
    return cli


def ids(cli: Cli, *options: str) -> dict[str, str]:
    """The id of each dead letter, by its file's key."""
    return {letter["key"]: str(letter["chunk_id"]) for letter in cli(*LIST, *options, "--json").json}


def test_a_store_without_dead_letters_says_so(filled: Cli) -> None:
    assert filled(*LIST, "--json").json == []
    assert "no dead letters" in filled(*LIST).err
    assert "dead-letters" not in filled("status").err


def test_the_list_says_what_and_why_and_status_leads_to_it(given_up: Cli) -> None:
    shown = given_up(*LIST)
    for said in ("a.md", "b.eml", "notes", "mail", "hashing-32", "open", "InvalidInput: text: 'this one'"):
        assert said in shown.out
    assert "2 open, 0 discarded" in shown.err
    letter = given_up(*LIST, "--collection", "notes", "--json").json[0]
    assert (letter["version"], letter["ordinal"], letter["attempts"]) == (1, 1, 3)
    assert "2 given up: `chunkstore dead-letters list`" in given_up("status").err


def test_the_list_is_of_one_collection_one_model_one_state(given_up: Cli) -> None:
    assert set(ids(given_up, "--collection", "mail")) == {"b.eml"}
    assert set(ids(given_up, "--model", "hashing:32", "--state", "open")) == {"a.md", "b.eml"}
    assert ids(given_up, "--model", "hashing:16") == {}
    assert ids(given_up, "--state", "discarded") == {}
    given_up(*LIST, "--collection", "no", expect=2)


def test_one_is_shown_with_its_whole_error_and_its_text(given_up: Cli) -> None:
    number = ids(given_up)["a.md"]
    shown = given_up("dead-letters", "show", number).out
    for said in (
        "a.md (collection notes)",
        "version 1, chunk 1",
        "without [bold]poison[/bold]",
        f"two {BAD}",
    ):
        assert said in shown
    (letter,) = given_up("dead-letters", "show", number, "--json").json
    assert (letter["content"], letter["model"], letter["metadata"]) == (f"two {BAD}", "hashing-32", {})


def test_what_is_retried_is_embedded_again_and_its_version_becomes_active(given_up: Cli) -> None:
    number = ids(given_up)["a.md"]
    (result,) = given_up("dead-letters", "retry", number, "--json").json
    assert (result["key"], result["result"]) == ("a.md", "retried")
    assert set(ids(given_up)) == {"b.eml"}
    given_up("consume", "--drain")
    given_up("project", "--drain")
    assert given_up("history", "a.md", "-c", "notes", "--json").json[0]["active"] is True


def test_all_of_a_collection_are_retried_at_once(given_up: Cli) -> None:
    shown = given_up("dead-letters", "retry", "--all", "--collection", "mail")
    assert "1 retried" in shown.err
    assert set(ids(given_up)) == {"a.md"}
    assert "nothing was done" in given_up("dead-letters", "retry", "--all", "--collection", "mail").err


def test_what_is_discarded_lets_the_version_become_active_and_can_be_taken_back(given_up: Cli) -> None:
    number = ids(given_up)["a.md"]
    assert "1 discarded" in given_up("dead-letters", "discard", number).err
    given_up("project", "--drain")
    (version,) = given_up("history", "a.md", "-c", "notes", "--json").json
    assert (version["active"], version["discarded"]) == (True, 1)
    assert "active, target, 1 chunk discarded" in given_up("history", "a.md", "-c", "notes").out
    given_up("dead-letters", "retry", number)
    assert set(ids(given_up)) == {"b.eml"}


def test_all_are_discarded_only_when_somebody_says_so(given_up: Cli) -> None:
    assert "Go on without 2 chunks?" in given_up("dead-letters", "discard", "--all", expect=2).err
    assert len(ids(given_up, "--state", "open")) == 2
    given_up("dead-letters", "discard", "--all", "--yes")
    assert len(ids(given_up, "--state", "discarded")) == 2


@pytest.mark.parametrize("done", ["retry", "discard"])
def test_ids_that_are_not_there_or_not_given_are_bad_input_and_nothing_is_done(
    given_up: Cli, done: str
) -> None:
    number = ids(given_up)["a.md"]
    assert "no dead letter is kept for 1;" in given_up("dead-letters", done, number, "1", expect=2).err
    assert "or --all" in given_up("dead-letters", done, expect=2).err
    assert "not both" in given_up("dead-letters", done, number, "--all", expect=2).err
    given_up("dead-letters", done, "x", expect=2)
    given_up("dead-letters", "show", "1", expect=2)
    assert len(ids(given_up, "--state", "open")) == 2
