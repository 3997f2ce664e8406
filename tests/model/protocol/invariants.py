"""What must hold in every state, and what once nothing moves any more; the numbers are the design's."""

from collections.abc import Iterator

from tests.model.protocol.postgres import Violation
from tests.model.protocol.rules import Rules
from tests.model.protocol.schema import Tables
from tests.model.protocol.states import Check, Scenario


def always(tables: Tables) -> None:
    """The invariants of every state."""
    for invariant in _ALWAYS:
        invariant(tables)


def check_of(scenario: Scenario, rules: Rules) -> Check:
    """What is checked of a scenario."""

    def in_every_state(tables: Tables) -> None:
        always(tables)
        _bounded(tables, rules)

    def at_the_end(tables: Tables) -> None:
        for model in sorted(scenario.served):
            if model in tables["models"]:
                _drained(tables, model)
                _no_superseded_rows(tables, model)
        if scenario.collects:
            _nothing_to_collect(tables, rules)

    return Check(in_every_state, at_the_end)


# --- every state ----------------------------------------------------------------------------------


def _dense_offsets(tables: Tables) -> None:
    """1: offsets of a partition are 0 … head-1, dense."""
    heads: dict[int, int] = {}
    for (partition, last), event in sorted(tables["events"].items()):
        if last - event.n + 1 != heads.get(partition, 0):
            raise Violation("invariant 1", f"partition {partition} has a gap or an overlap before {last}")
        heads[partition] = last + 1


def _manifests_exist(tables: Tables) -> None:
    """3: every chunk in a committed or open, uncollected manifest exists."""
    for (file, number), version in tables["versions"].items():
        if version.state in ("open", "committed"):
            for segment in version.segments:
                row = tables["segments"].get(segment)
                if row is None or any(chunk not in tables["chunks"] for chunk in row.chunks):
                    raise Violation("invariant 3", f"version {number} of {file} names what is gone")


def _rows_stand_on_chunks(tables: Tables) -> None:
    """4: no embedding, search or active row or dead letter without its chunk; none embedded and given up."""
    for table in ("embeddings", "search", "active_rows", "dead_letters"):
        for key in sorted(tables[table]):
            if key[0] not in tables["chunks"]:
                raise Violation("invariant 4", f"{table} {key} has no chunk")
    for key in tables["dead_letters"]:
        if key in tables["embeddings"]:
            raise Violation("invariant 4", f"{key} is embedded and a dead letter")


def _chunks_of(tables: Tables, file: str, version: int) -> set[str]:
    row = tables["versions"].get((file, version))
    return {
        chunk
        for segment in (row.segments if row else ())
        if segment in tables["segments"]
        for chunk in tables["segments"][segment].chunks
    }


def _searches_see_whole_versions(tables: Tables) -> None:
    """6: what searches see of a file is exactly one committed version."""
    seen: dict[tuple[str, str], set[str]] = {}
    for (chunk, model, table), file in tables["active_rows"].items():
        if table == "live":
            seen.setdefault((file, model), set()).add(chunk)
    for (file, model), active in tables["active"].items():
        if active.version is not None:
            rows = seen.pop((file, model), set())
            version = tables["versions"].get((file, active.version))
            if version is None or version.state != "committed":
                raise Violation("invariant 6", f"version {active.version} of {file} is active and not there")
            chunks = _chunks_of(tables, file, active.version)
            if rows != chunks:
                raise Violation("invariant 6", f"searches see {sorted(rows)} of {file}, not {sorted(chunks)}")
    for (file, _), rows in seen.items():
        raise Violation("invariant 6", f"searches see {sorted(rows)} of {file}, which has no active version")


def _searches_find_what_is_active(tables: Tables) -> None:
    """6: every chunk of an active version has its search row, or a dead letter instead."""
    for (chunk, model, table), file in sorted(tables["active_rows"].items()):
        if table != "live" or (chunk, model, "live") in tables["search"]:
            continue
        if (chunk, model) not in tables["dead_letters"] and not _taken_back(tables, file, model, chunk):
            raise Violation("invariant 6", f"{chunk} is active in {file} and cannot be found")


def _taken_back(tables: Tables, file: str, model: str, chunk: str) -> bool:
    """Whether a version was active without the chunk, by its discarded letter, before that was taken back."""
    events = [event for _, event in sorted(tables["events"].items()) if event.model == model]
    activated = max(i for i, e in enumerate(events) if e.type == "version_activated" and e.file == file)
    return any(e.type == "dead_letter_retried" and e.chunks == (chunk,) for e in events[activated:])


def _activations_follow_targets(tables: Tables) -> None:
    """7 and rule 15: what becomes active is the target, so only a rollback brings an earlier version back."""
    targets: dict[str | None, int] = {}
    for _, event in sorted(tables["events"].items()):
        if event.type == "target_changed" or (event.type == "version_committed" and event.target):
            targets[event.file] = event.version
        elif event.type == "version_activated" and event.version != targets[event.file]:
            what = (
                f"version {event.version} of {event.file} becomes active, {targets[event.file]} is the target"
            )
            raise Violation("invariant 7", what)


def _projection_equals_a_replay(tables: Tables) -> None:
    """10: the log says what is active."""
    last: dict[tuple[str | None, str | None], int] = {}
    for _, event in sorted(tables["events"].items()):
        if event.type == "version_activated":
            last[event.file, event.model] = event.version
        elif event.type == "file_erased":
            last = {key: version for key, version in last.items() if key[0] != event.file}
    now = {key: active.version for key, active in tables["active"].items() if active.version is not None}
    for file, model in sorted({*last, *now}):
        if last.get((file, model)) != now.get((file, model)):
            seen, said = now.get((file, model)), last.get((file, model))
            raise Violation("invariant 10", f"version {seen} of {file} is active, the log says {said}")


def _only_holders_complete(tables: Tables) -> None:
    """8: a range was marked done by its holder."""
    for key, done in tables["done"].items():
        lease = tables["leases"].get(key)
        if lease is None or (lease.owner, lease.epoch, lease.hi) != done:
            raise Violation("invariant 8", f"{done.owner} marked {key} done, which is not its own: {lease}")


def _kept_versions(tables: Tables) -> None:
    """9: the collector removes nothing pinned, open, latest, target or active."""
    for (file, number), version in tables["versions"].items():
        if version.state not in ("collected", "abandoned"):
            continue
        row = tables["files"][file]
        active = {a.version for (of, _), a in tables["active"].items() if of == file}
        if version.pinned or number in (row.latest, row.target) or number in active:
            raise Violation("invariant 9", f"version {number} of {file} is {version.state} and kept")


def _erased_is_erased(tables: Tables) -> None:
    """11: after erasing a file no table holds its key, content, metadata or vectors."""
    for event in tables["events"].values():
        if event.text:
            raise Violation("invariant 11", f"the log holds the text {event.text!r} for ever")
        if event.type == "file_erased":
            for table in _tables_that_hold(tables, event.file):
                raise Violation("invariant 11", f"{event.file} was erased, and {table} holds something of it")


def _tables_that_hold(tables: Tables, file: str | None) -> Iterator[str]:
    if tables["files"][file].key is not None:
        yield "files"
    for table in ("versions", "active", "idempotency_keys"):
        if any(key[0] == file for key in tables[table]):
            yield table
    if any(row.file == file for row in tables["segments"].values()):
        yield "segments"
    chunks = {chunk: row.text for chunk, row in tables["chunks"].items() if row.file == file}
    if any(chunks.values()):
        yield "chunks"
    for table in ("embeddings", "search", "active_rows", "dead_letters"):
        if any(key[0] in chunks for key in tables[table]):
            yield table


def _log_says_once(tables: Tables) -> None:
    """Rule 13: an event says what is new, once."""
    said: set[tuple[str, str | None]] = set()
    for event in tables["events"].values():
        if event.type == "chunks_embedded":
            if not event.chunks or any((chunk, event.model) in said for chunk in event.chunks):
                raise Violation("embedded once", f"the log says twice that {event.chunks} was embedded")
            said.update((chunk, event.model) for chunk in event.chunks)


def _bounded(tables: Tables, rules: Rules) -> None:
    """Rule 11: no range comes back for ever; each takeover costs an attempt or halves it."""
    for key, lease in tables["leases"].items():
        if lease.epoch > rules.attempts + 5:
            raise Violation("for ever", f"the range {key} comes back again and again")


_ALWAYS = (
    _dense_offsets,
    _manifests_exist,
    _rows_stand_on_chunks,
    _kept_versions,
    _searches_see_whole_versions,
    _searches_find_what_is_active,
    _activations_follow_targets,
    _projection_equals_a_replay,
    _only_holders_complete,
    _erased_is_erased,
    _log_says_once,
)


# --- when nothing moves ---------------------------------------------------------------------------


def _drained(tables: Tables, model: str) -> None:
    """5 and 13: every needed chunk has its embedding or a dead letter; what is active is the target."""
    for file, row in tables["files"].items():
        if row.key is None or not row.target or not _was_told(tables, file, row.target, model):
            continue
        open_letter = False
        for chunk in sorted(_chunks_of(tables, file, row.target)):
            letter = tables["dead_letters"].get((chunk, model))
            open_letter |= letter == "open"
            if letter is None and (chunk, model) not in tables["embeddings"]:
                raise Violation(
                    "invariant 5", f"{chunk} of version {row.target} is never embedded for {model}"
                )
        active = tables["active"].get((file, model))
        if (active is None or active.version != row.target) and not open_letter:
            seen = None if active is None else active.version
            raise Violation("invariant 13", f"version {row.target} of {file} never becomes active, {seen} is")


def _was_told(tables: Tables, file: str, version: int, model: str) -> bool:
    """Whether the version became the target after the model came, or was back-filled."""
    events = [event for _, event in sorted(tables["events"].items())]
    came = [
        place for place, event in enumerate(events) if event.type == "model_added" and event.model == model
    ]
    return any(
        (event.file, event.version) == (file, version)
        and event.type in ("version_committed", "target_changed", "file_backfilled")
        for event in events[came[-1] if came else 0 :]
    )


def _no_superseded_rows(tables: Tables, model: str) -> None:
    """9: search rows of what is neither active, target nor open are gone."""
    for chunk, of, table in sorted(tables["search"]):
        if of != model or table != "live":
            continue
        file = tables["chunks"][chunk].file
        active = tables["active"].get((file, model))
        kept = {
            number for (owner, number), v in tables["versions"].items() if owner == file and v.state == "open"
        }
        kept |= {tables["files"][file].target, active.version if active and active.version else 0}
        if not any(chunk in _chunks_of(tables, file, number) for number in kept):
            raise Violation("invariant 9", f"the search row of {chunk} is left behind for ever")


def _nothing_to_collect(tables: Tables, rules: Rules) -> None:
    """9: after the collector nothing is left that no kept version needs."""
    named: set[str] = set()
    for (file, number), version in tables["versions"].items():
        if version.state == "committed":
            named |= _chunks_of(tables, file, number)
            row = tables["files"][file]
            active = {a.version for (of, _), a in tables["active"].items() if of == file}
            newer = sum(
                n > number and v.state == "committed"
                for (of, n), v in tables["versions"].items()
                if of == file
            )
            kept = version.pinned or number in (row.latest, row.target) or number in active
            if not kept and newer >= rules.keep_last:
                raise Violation("invariant 9", f"version {number} of {file} is never collected")
        elif version.state == "open" or version.segments:
            raise Violation("invariant 9", f"version {number} of {file} stays {version.state} for ever")
    for chunk in sorted(tables["chunks"]):
        if chunk not in named:
            raise Violation("invariant 9", f"{chunk} is left over for ever")
