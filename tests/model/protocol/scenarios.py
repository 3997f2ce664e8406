"""The scenarios: a few processes each, small enough to visit every state."""

from typing import Any

from tests.model.protocol import administrator, collector, consumer, eraser, projector, rebuilder, writer
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
    erase_a = one("eraser", call(eraser.erase, "A"))
    ab = call(append, "A", "ab")
    return [
        Scenario(
            "two writers of one file, a consumer, a projector",
            empty(),
            (*writers(ab, call(append, "A", "bc")), *consumers(), *projectors()),
        ),
        Scenario(
            "two writers of two files in one partition",
            empty(),
            writers((ab, call(append, "A", "b")), (call(append, "B", "a"), call(append, "B", "b"))),
            served=frozenset(),
        ),
        Scenario(
            "two writers that expect what they read",
            empty(),
            writers(
                (call(append, "A", "a", 0), call(append, "A", "b", 1)),
                (call(append, "A", "c", 0), call(append, "A", "d", 1)),
            ),
            served=frozenset(),
        ),
        Scenario(
            "two tries of one append",
            lived(call(append, "A", "a"), served=False),
            writers(
                (call(append, "A", "b", None, "k"), call(append, "A", "c")), call(append, "A", "b", None, "k")
            ),
            served=frozenset(),
        ),
        Scenario(
            "a stream, a collector, its deadline",
            empty(),
            (*writers(call(stream, "A", ("a", "b")), call(append, "A", "a")), *collectors()),
            expiries=1,
            served=frozenset(),
            collects=True,
        ),
        Scenario(
            "a stream whose batches are consumed",
            empty(),
            (*writers(call(stream, "A", ("a", "b"))), *consumers(), *projectors(), *collectors()),
            expiries=1,
            collects=True,
        ),
        Scenario(
            "a stream that is tried again",
            lived(call(append, "A", "a"), served=False),
            (
                *writers(
                    (call(stream, "A", ("b", "c"), 1, "k"), call(stream, "A", ("b", "c"), None, "k")),
                    call(append, "A", "b|c", None, "k"),
                    crashes=True,
                    comes_back=False,
                ),
            ),
            crashes=1,
            served=frozenset(),
        ),
        Scenario(
            "two consumers, a lease that runs out",
            lived(call(append, "A", "ab"), served=False),
            (*consumers(2, crashes=True), *projectors()),
            expiries=1,
            crashes=1,
        ),
        Scenario(
            "two consumers, ranges of one chunk, two leases that run out",
            lived(call(append, "A", "a"), served=False),
            consumers(2),
            expiries=2,
            rules=Rules(renewals=True, attempts=3),
            served=frozenset(),
        ),
        Scenario(
            "a bad chunk",
            lived(call(append, "A", "aX"), served=False),
            (*consumers(2), *projectors(), *one("operator", call(consumer.discard, "m", "X"))),
            expiries=0,
        ),
        Scenario(
            "a chunk that kills its consumer",
            lived(call(append, "A", "aK"), served=False),
            (*consumers(1), *projectors()),
            rules=Rules(attempts=3),
        ),
        Scenario(
            "erase against a consumer and a projector",
            lived(call(append, "A", "ab"), served=False),
            (*erase_a, *consumers(), *projectors(), *writers(call(append, "A", "c"))),
        ),
        Scenario(
            "roll back against the collector",
            lived(call(append, "A", "ab"), call(append, "A", "b|c")),
            (
                *writers(call(roll_back, "A", 1), call(pin, "A", 1)),
                *consumers(),
                *projectors(),
                *collectors(),
            ),
            collects=True,
        ),
        Scenario(
            "a copy whose source is erased",
            lived(call(append, "A", "a")),
            (*writers(call(append, "B", "a")), *erase_a, *consumers(), *projectors()),
        ),
        Scenario(
            "a model is added against two writers",
            lived(call(append, "A", "a"), before=empty(models="", groups="m")),
            (
                *one("administrator", call(administrator.add_model, "m")),
                *writers(call(append, "A", "a|b"), call(append, "B", "a")),
                *consumers(),
                *projectors(),
            ),
        ),
        Scenario(
            "a rebuild against a switch",
            lived(call(append, "A", "a")),
            (
                *one("rebuilder", call(rebuilder.rebuild, "m")),
                *writers(call(append, "A", "b")),
                *consumers(),
                *projectors(),
            ),
        ),
        Scenario(
            "a rebuild against an erasure",
            lived(call(append, "A", "a")),
            (*one("rebuilder", call(rebuilder.rebuild, "m")), *erase_a),
        ),
        Scenario(
            "two projectors, a checkpoint that runs out",
            lived(call(append, "A", "a")),
            (*writers((call(append, "A", "b"), call(roll_back, "A", 1))), *consumers(), *projectors(2)),
            expiries=1,
        ),
    ]
