"""The scenarios: a few processes each, small enough to visit every state."""

from tests.model.protocol import dead_letters, removal
from tests.model.protocol.building import (
    collectors,
    consumers,
    empty,
    erasers,
    lived,
    one,
    projectors,
    writers,
)
from tests.model.protocol.rules import Rules
from tests.model.protocol.states import Process, Scenario, call
from tests.model.protocol.streams import stream
from tests.model.protocol.targets import roll_back
from tests.model.protocol.writer import append


def scenarios() -> list[Scenario]:
    """All of them, at the bounds of CI."""
    return [
        *_of_writers(),
        *_of_consumers(),
        *_of_projectors(),
        *removal.of_removal(),
        *removal.of_everything(),
        *removal.of_models_and_rebuilds(),
    ]


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
            "an append takes on what a roll back superseded",
            lived(a),
            (
                *writers(
                    (call(append, "A", "ab"), call(roll_back, "A", 1), call(append, "A", "abc")),
                ),
                *consumers(),
                *projectors(),
            ),
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
            (*consumers(2), *projectors(), *one("operator", call(dead_letters.discard, "m", "X"))),
        ),
        Scenario(
            "a bad chunk that is discarded and taken back",
            lived(call(append, "A", "Xb"), served=False),
            (
                *consumers(),
                *projectors(),
                Process(
                    "operator", (call(dead_letters.discard, "m", "X"), call(dead_letters.retry, "m", "X"))
                ),
            ),
            rules=Rules(batch=1, attempts=1),
        ),
        Scenario(
            "a chunk that is taken back into what is active, a roll back",
            lived(
                call(append, "A", "b"),
                call(dead_letters.retry, "m", "X"),
                call(append, "A", "c"),
                before=lived(call(append, "A", "X"), call(dead_letters.discard, "m", "X")),
                served=False,
            ),
            (*writers(call(roll_back, "A", 1)), *consumers(), *projectors()),
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
            (*writers(call(append, "B", "a")), *erasers("A"), *consumers(), *projectors()),
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
            "an append replaces a roll back that is half embedded",
            lived(call(append, "A", "c"), before=lived(call(append, "A", "ab"), served=False)),
            (*writers((call(roll_back, "A", 1), call(append, "A", "d"))), *consumers(), *projectors()),
            rules=Rules(batch=1),
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
