"""`migrate` and `collection`."""

from tests.cli.fix_cli import MODEL, Cli


def test_migrate_says_what_it_applied_and_then_has_nothing_to_do(empty_cli: Cli) -> None:
    assert "0001_store" in empty_cli("migrate").err
    assert "nothing to do" in empty_cli("migrate").err
    assert empty_cli("migrate", "--json").json == []


def test_a_command_before_migrate_says_to_run_it(empty_cli: Cli) -> None:
    assert "run `chunkstore migrate`" in empty_cli("status", expect=3).err


def test_the_number_of_partitions_is_chosen_once(cli: Cli) -> None:
    cli("migrate", "--partitions", "4")
    assert cli("status", "--json").json["partitions"] == 4
    cli("collection", "create", "notes", "--model", MODEL)
    cli("migrate", "--partitions", "4")
    assert "fixed once the store is in use" in cli("migrate", "--partitions", "8", expect=1).err
    assert cli("status", "--json").json["partitions"] == 4


def test_a_log_without_partitions_is_refused(empty_cli: Cli) -> None:
    empty_cli("migrate", "--partitions", "0", expect=2)
    empty_cli("status", expect=3)


def test_a_collection_keeps_what_it_was_created_with(cli: Cli) -> None:
    create = ("collection", "create", "notes", "--model", MODEL, "--keep-last", "5", "--keep-for", "30d")
    kept = {
        "name": "notes",
        "models": ["hashing-64"],
        "keep_last": 5,
        "keep_for": "P30D",
        "headings": True,
    }
    assert cli(*create, "--json").json == kept  # and no salt
    assert cli("collection", "list", "--json").json == [kept]
    shown = cli("collection", "list").out
    assert "notes" in shown
    assert "hashing-64" in shown


def test_a_collection_with_another_model_is_refused(cli: Cli) -> None:
    cli("collection", "create", "notes", "--model", MODEL)
    refused = cli("collection", "create", "notes", "--model", "hashing:32", expect=2)
    assert "hashing-64" in refused.err
