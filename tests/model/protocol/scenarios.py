"""The scenarios: a few processes each, small enough to visit every state."""

from typing import Any

from tests.model.protocol import (
    administrator,
    collector,
    consumer,
    eraser,
    holder,
    projector,
    rebuilder,
    writer,
)
from tests.model.protocol.clock import time_passes
from tests.model.protocol.explorer import Call, Check, Explorer, Process, Scenario, call
from tests.model.protocol.rules import Rules
from tests.model.protocol.schema import TABLES, Checkpoint, Model, Tables

# --- tables to begin with -------------------------------------------------------------------------


def empty(*, models: str = "m", groups: str = "m", partitions: int = 1) -> Tables:
    """A store without files: its models, and the groups that follow its log."""
    tables: Tables = {table: {} for table in TABLES}
    tables["partitions"] = dict.fromkeys(range(partitions), True)
    tables["models"] = {model: Model() for model in models}
    places = [(model, partition) for model in groups for partition in range(partitions)]
    tables["progress"] = dict.fromkeys(places, True)
    tables["checkpoints"] = {place: Checkpoint() for place in places}
    tables["time"] = {"now": 0}
    return tables


def lived(*calls: Call, before: Tables | None = None, served: bool = True) -> Tables:
    """A store after some calls, one after the other, each with all that consumers and projector do then."""
    tables = before or empty()
    helpers = (*consumers(1), *projectors()) if served else ()
    for one in calls:
        scenario = Scenario("before", tables, (Process("writer", (one,)), *helpers))
        nothing = Check(lambda _: None, lambda _: None)
        tables = Explorer(scenario, Rules(keep_last=9), nothing, time_passes).walk()
    return tables


# --- processes ------------------------------------------------------------------------------------


def writers(*scripts: Call | tuple[Call, ...], **options: Any) -> tuple[Process, ...]:
    """Writers, each with its calls."""
    return tuple(
        Process(f"writer {number}", (script,) if isinstance(script, Call) else script, **options)
        for number, script in enumerate(scripts, 1)
    )


def consumers(count: int = 1, model: str = "m", **options: Any) -> tuple[Process, ...]:
    """Consumers of a model."""
    names = [f"consumer {number}" for number in range(1, count + 1)]
    return tuple(
        Process(name, (call(consumer.consume, name, model),), repeats=True, **options) for name in names
    )


def projectors(count: int = 1, model: str = "m", **options: Any) -> tuple[Process, ...]:
    """Projectors of a model."""
    names = [f"projector {number}" for number in range(1, count + 1)]
    return tuple(
        Process(name, (call(projector.project, name, model),), repeats=True, **options) for name in names
    )


def collectors(**options: Any) -> tuple[Process, ...]:
    """The collector."""
    return (Process("collector", (call(collector.collect),), repeats=True, **options),)


def one(name: str, script: Call, **options: Any) -> tuple[Process, ...]:
    """A process that makes one call."""
    return (Process(name, (script,), **options),)


append, stream, roll_back, pin = writer.append, writer.stream, writer.roll_back, writer.pin


# --- scenarios ------------------------------------------------------------------------------------


def scenarios() -> list[Scenario]:
    """All of them, at the bounds of CI."""
    return [*_of_writers(), *_of_consumers(), *_of_projectors(), *_of_removal(), *_of_models_and_rebuilds()]


def _of_writers() -> list[Scenario]:
    a, ab = call(append, "A", "a"), call(append, "A", "ab")
    return [
        Scenario(
            "two writers of one file, a consumer, a projector",
            empty(),
            (*writers(ab, call(append, "A", "bc")), *consumers(), *projectors()),
        ),
        Scenario(
            "two writers of two files in one partition",
            lived(a, call(append, "B", "a"), served=False),
            writers((ab, call(append, "A", "b")), (call(append, "B", "ab"), call(append, "B", "b"))),
            served=frozenset(),
        ),
        Scenario(
            "two writers that expect what they read",
            lived(a, served=False),
            writers(
                (call(append, "A", "b", 1), call(append, "A", "c", 2)),
                (call(append, "A", "d", 1), call(append, "A", "e", 2)),
            ),
            served=frozenset(),
        ),
        Scenario(
            "two tries of one append",
            lived(a, served=False),
            writers(
                (call(append, "A", "b", None, "k"), call(append, "A", "c")), call(append, "A", "b", None, "k")
            ),
            served=frozenset(),
        ),
        Scenario(
            "a stream, a writer, a collector, a deadline",
            lived(a, served=False),
            (*writers(call(stream, "A", ("a", "b")), call(append, "A", "c")), *collectors()),
            expiries=1,
            served=frozenset(),
            collects=True,
        ),
        Scenario(
            "a stream that expects a version, a writer",
            lived(a, served=False),
            writers(call(stream, "A", ("b", "c"), 1), call(append, "A", "d", 1)),
            served=frozenset(),
        ),
        Scenario(
            "a stream that is tried again",
            lived(a, served=False),
            writers(
                call(stream, "A", ("b", "c"), None, "k"),
                (call(append, "A", "b|c", None, "k"), call(append, "A", "d")),
                crashes=True,
                comes_back=False,
            ),
            crashes=1,
            served=frozenset(),
        ),
        Scenario(
            "a stream whose batches are consumed",
            empty(),
            (*writers(call(stream, "A", ("a", "b"))), *consumers(), *projectors()),
        ),
        Scenario(
            "a version comes back before anything is embedded",
            lived(a, call(append, "A", "b"), served=False),
            (*writers(a), *consumers(), *projectors()),
        ),
        Scenario(
            "a roll back before anything is embedded",
            lived(a, call(append, "A", "b"), served=False),
            (*writers(call(roll_back, "A", 1)), *consumers(), *projectors()),
        ),
        Scenario(
            "an append that changes nothing, after a chunk was given up",
            lived(call(append, "A", "aX")),
            (*writers(call(append, "A", "aX")), *consumers(), *projectors()),
        ),
        Scenario(
            "an append after a roll back",
            lived(a, call(append, "A", "b")),
            (*writers((call(roll_back, "A", 1), call(append, "A", "b"))), *consumers(), *projectors()),
        ),
    ]


def _of_consumers() -> list[Scenario]:
    a = call(append, "A", "a")
    return [
        Scenario(
            "two consumers, a lease that runs out, a crash",
            lived(call(append, "A", "ab"), served=False),
            (*consumers(2, crashes=True), *projectors()),
            expiries=1,
            crashes=1,
        ),
        Scenario(
            "a consumer that is killed",
            lived(a, served=False),
            (*consumers(crashes=True), *projectors()),
            crashes=1,
        ),
        Scenario(
            "two consumers that may renew, two leases that run out",
            lived(a, served=False),
            consumers(2),
            expiries=2,
            rules=Rules(renewals=True, attempts=3),
            served=frozenset(),
        ),
        Scenario(
            "a chunk that is logged twice, two consumers",
            lived(a, call(append, "A", "a|b"), served=False),
            (*consumers(2), *projectors()),
            rules=Rules(batch=1),
        ),
        Scenario(
            "a chunk that is logged twice, and the model fails now and then",
            lived(call(append, "A", "~"), call(append, "A", "~|b"), served=False),
            consumers(2),
            rules=Rules(batch=1, attempts=1),
            served=frozenset(),
        ),
        Scenario(
            "a bad chunk",
            lived(call(append, "A", "aX"), served=False),
            (*consumers(2), *projectors(), *one("operator", call(consumer.discard, "m", "X"))),
        ),
        Scenario(
            "a bad chunk that is discarded and taken back",
            lived(call(append, "A", "Xb"), served=False),
            (
                *consumers(),
                *projectors(),
                Process("operator", (call(consumer.discard, "m", "X"), call(consumer.retry, "m", "X"))),
            ),
            rules=Rules(batch=1, attempts=1),
        ),
        Scenario(
            "a chunk that kills its consumer",
            lived(call(append, "A", "aK"), served=False),
            (*consumers(), *projectors()),
            rules=Rules(attempts=3),
        ),
        Scenario(
            "a copy whose source is erased",
            lived(a),
            (*writers(call(append, "B", "a")), *_eraser("A"), *consumers(), *projectors()),
        ),
    ]


def _of_projectors() -> list[Scenario]:
    a, b = call(append, "A", "a"), call(append, "A", "b")
    return [
        Scenario(
            "two projectors, a checkpoint that runs out",
            lived(a),
            (*writers((b, call(roll_back, "A", 1))), *consumers(), *projectors(2)),
            expiries=1,
        ),
        Scenario(
            "chunks that move and repeat",
            lived(call(append, "A", "aa|b")),
            (*writers(call(append, "A", "ba|a")), *consumers(), *projectors()),
        ),
        Scenario(
            "a projector that is killed",
            lived(a),
            (*writers(call(append, "A", "ab")), *consumers(), *projectors(crashes=True)),
            crashes=1,
        ),
        Scenario(
            "a file is deleted while it is embedded",
            empty(),
            (*writers((a, call(append, "A", ""))), *consumers(), *projectors()),
        ),
        Scenario(
            "a roll back from a version that is never complete",
            lived(a),
            (*writers((call(append, "A", "bX"), call(roll_back, "A", 1))), *consumers(), *projectors()),
            rules=Rules(attempts=1),
        ),
        Scenario(
            "a stream that is committed after a later version",
            lived(a),
            (*writers(call(stream, "A", ("b",)), call(append, "A", "c")), *consumers(), *projectors()),
        ),
        Scenario(
            "a stream that is given up after a later version",
            lived(a),
            (*writers(call(stream, "A", ("b",), 1), call(append, "A", "c")), *consumers(), *projectors()),
        ),
    ]


def _of_removal() -> list[Scenario]:
    ab = call(append, "A", "ab")
    return [
        Scenario(
            "erase against a consumer, a projector and a writer",
            lived(ab, served=False),
            (*_eraser("A"), *consumers(), *projectors(), *writers(call(append, "A", "c"))),
        ),
        Scenario(
            "erase against a stream",
            lived(ab, served=False),
            (*_eraser("A"), *writers(call(stream, "A", ("a", "c")))),
            served=frozenset(),
        ),
        Scenario(
            "erase against a bad chunk",
            lived(call(append, "A", "X"), served=False),
            (*_eraser("A"), *consumers()),
            rules=Rules(attempts=1),
        ),
        Scenario(
            "erase against a consumer of two chunks",
            lived(ab, served=False),
            (*_eraser("A"), *consumers()),
        ),
        Scenario(
            "roll back and pin against the collector",
            lived(ab, call(append, "A", "b|c"), call(append, "A", "d")),
            (
                *writers(call(roll_back, "A", 1), call(pin, "A", 2)),
                *consumers(),
                *projectors(),
                *collectors(),
            ),
            collects=True,
        ),
        Scenario(
            "an append against the collector",
            lived(ab),
            (*writers(call(append, "A", "b|c")), *consumers(), *projectors(), *collectors(crashes=True)),
            crashes=1,
            collects=True,
        ),
        Scenario(
            "a chunk comes back against the collector",
            lived(ab, call(append, "A", "c"), served=False),
            (*writers(call(append, "A", "a")), *collectors()),
            served=frozenset(),
            collects=True,
        ),
        Scenario(
            "a late consumer against the collector",
            lived(call(append, "A", "a"), served=False),
            (*writers(call(append, "A", "b")), *consumers(), *collectors()),
            served=frozenset(),
            collects=True,
        ),
        Scenario(
            "a caller who holds a chunk, a writer, the collector",
            lived(ab, call(append, "A", "c"), served=False),
            (*one("caller", call(holder.hold, "b.A1.1")), *writers(call(append, "A", "ab")), *collectors()),
            served=frozenset(),
            collects=True,
        ),
        Scenario(
            "a caller who holds a chunk, the collector",
            lived(ab, call(append, "A", "c"), served=False),
            (*one("caller", call(holder.hold, "b.A1.1")), *collectors()),
            served=frozenset(),
            collects=True,
        ),
        Scenario(
            "two versions are kept, a pin",
            lived(ab, call(append, "A", "bc"), call(append, "A", "cd"), served=False),
            (*writers(call(append, "A", "de"), call(pin, "A", 1)), *collectors()),
            served=frozenset(),
            collects=True,
            rules=Rules(keep_last=2),
        ),
    ]


def _of_models_and_rebuilds() -> list[Scenario]:
    a, b = call(append, "A", "a"), call(append, "A", "b")
    rebuild = one("rebuilder", call(rebuilder.rebuild, "m"))
    without_models = empty(models="")
    return [
        Scenario(
            "a model is added against a writer",
            lived(a, before=without_models),
            (
                *one("administrator", call(administrator.add_model, "m")),
                *writers(call(append, "A", "a|b")),
                *consumers(),
                *projectors(),
            ),
        ),
        Scenario(
            "a model is added against a roll back, and whoever adds it dies",
            lived(a, b, before=without_models),
            (
                *one("administrator", call(administrator.begin_to_add, "m")),
                *writers(call(roll_back, "A", 1)),
                *consumers(),
                *projectors(),
            ),
        ),
        Scenario(
            "a model is added to a file without chunks",
            lived(a, call(append, "A", ""), before=without_models),
            (*one("administrator", call(administrator.add_model, "m")), *consumers(), *projectors()),
        ),
        Scenario(
            "two models are added, two partitions, two writers",
            empty(models="", partitions=2),
            (
                *one("administrator 1", call(administrator.begin_to_add, "m", 0)),
                *one("administrator 2", call(administrator.begin_to_add, "n", 1)),
                *writers(a, call(append, "B", "a")),
            ),
            served=frozenset(),
        ),
        Scenario(
            "a rebuild against a switch",
            lived(a),
            (*rebuild, *writers(b), *consumers(), *projectors()),
        ),
        Scenario("a rebuild against an erasure", lived(call(append, "A", "ab")), (*rebuild, *_eraser("A"))),
        Scenario(
            "a rebuild against the collector",
            lived(a, b),
            (*rebuild, *collectors()),
            collects=True,
        ),
    ]


def _eraser(key: str) -> tuple[Process, ...]:
    return one("eraser", call(eraser.erase, key))


def at_large() -> list[Scenario]:
    """More processes at once: for `make model`, which has the time."""
    a = call(append, "A", "a")
    return [
        Scenario(
            "two writers, two consumers, a projector, the collector, a crash, a lease that runs out",
            lived(a),
            (
                *writers(call(append, "A", "b"), call(roll_back, "A", 1)),
                *consumers(2, crashes=True),
                *projectors(),
                *collectors(),
            ),
            crashes=1,
            expiries=1,
            collects=True,
        ),
        Scenario(
            "a stream, an erasure, a consumer, a projector, the collector, a deadline",
            lived(a),
            (
                *writers(call(stream, "A", ("b", "c"))),
                *_eraser("A"),
                *consumers(),
                *projectors(),
                *collectors(),
            ),
            expiries=1,
            collects=True,
        ),
        Scenario(
            "a rebuild, an erasure, a writer, a consumer, a projector",
            lived(a, call(append, "B", "b")),
            (
                *one("rebuilder", call(rebuilder.rebuild, "m")),
                *_eraser("A"),
                *writers(call(append, "B", "c")),
                *consumers(),
                *projectors(),
            ),
        ),
    ]
