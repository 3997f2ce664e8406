"""Any arguments at all: an exit code that scripts know, one line of complaint, never a traceback."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chunkstore.cli.app import load
from chunkstore.cli.codes import Exit
from chunkstore.cli.run import run

APP = load()
GROUPS = ("collection", "dead-letters")
COMMANDS = [[name] for name in APP] + [[group, name] for group in GROUPS for name in APP[group]] + [[]]
FLAGS = ["--json", "--drain", "--yes", "--dry-run", "--prune", "--wait", "--full", "-h", "--", "-", "="]
VALUES = ["--to", "-k", "-c", "-m", "--batch", "--device", "--schema", "--keep-last"]
texts = st.text(st.characters(exclude_characters="\0"), max_size=12)  # no argument of a process holds NUL
tokens = st.sampled_from(FLAGS + VALUES) | texts | st.integers().map(str) | st.floats().map(str)


@pytest.fixture
def nowhere() -> Iterator[None]:
    """An environment whose store cannot be reached: what gets as far as a database ends there."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("CHUNKSTORE_")]:
            patch.delenv(name)
        patch.setenv("CHUNKSTORE_DSN", "postgresql://nobody@127.0.0.1:1/none")
        yield


@given(command=st.sampled_from(COMMANDS), arguments=st.lists(tokens, max_size=5))
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_arguments_end_with_a_known_code_and_no_traceback(
    nowhere: None, capfd: pytest.CaptureFixture[str], command: list[str], arguments: list[str]
) -> None:
    capfd.readouterr()
    code = run([*command, *arguments])
    out, err = capfd.readouterr()
    assert code in set(Exit)
    assert "Traceback" not in out + err
    if code not in (Exit.OK, Exit.PROBLEM):
        assert err.startswith("chunkstore: ")
