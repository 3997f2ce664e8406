"""Time: leases and deadlines run out, one early while its holder is alive, or all once nobody can move."""

from collections.abc import Iterator

from tests.model.protocol.schema import Tables


def time_passes(tables: Tables, hurried: bool) -> Iterator[tuple[str, Tables]]:
    """Each lease or deadline that may run out now, with the tables after it."""
    running = [
        *(
            ("leases", key, lease._replace(expired=True), f"the lease of {key[0]} at {key[2]} runs out")
            for key, lease in tables["leases"].items()
            if not lease.expired and key not in tables["done"]
        ),
        *(
            (
                "checkpoints",
                key,
                checkpoint._replace(expired=True),
                f"the checkpoint's lease of {key[0]} runs out",
            )
            for key, checkpoint in tables["checkpoints"].items()
            if checkpoint.owner is not None and not checkpoint.expired
        ),
        *(
            (
                "versions",
                key,
                version._replace(overdue=True),
                f"version {key[1]} of {key[0]} passes its deadline",
            )
            for key, version in tables["versions"].items()
            if version.state == "open" and not version.overdue
        ),
    ]
    if hurried:
        for table, key, row, label in running:
            yield label, _later({**tables, table: {**tables[table], key: row}})
    elif running:
        after = {**tables}
        for table, key, row, _ in running:
            after[table] = {**after[table], key: row}
        yield "everything that is held runs out", _later(after)


def _later(tables: Tables) -> Tables:
    return {**tables, "time": {"now": tables["time"]["now"] + 1}}
