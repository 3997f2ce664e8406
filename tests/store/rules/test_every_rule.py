"""No rule goes without its tests, and `docs/rules.md` names each of them."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
_TEST = re.compile(r"^async def (test_(?:without_)?(?:rule|lock_order)_\w+)", re.MULTILINE)
TESTS = [name for path in sorted(FOLDER.glob("test_*.py")) for name in _TEST.findall(path.read_text())]


@pytest.mark.parametrize("rule", range(1, 23))
def test_every_rule_has_a_test_and_a_twin_that_fails_without_it(rule: int) -> None:
    assert any(name.startswith(f"test_rule_{rule:02}_") for name in TESTS)
    assert any(name.startswith(f"test_without_rule_{rule:02}_") for name in TESTS)


def test_the_page_of_rules_names_every_twin_and_no_test_that_is_not_there() -> None:
    page = (FOLDER.parents[2] / "docs" / "rules.md").read_text()
    named = set(re.findall(r"`(test_(?:without_)?(?:rule|lock_order)_\w+)`", page))
    assert named <= set(TESTS)
    assert {name for name in TESTS if name.startswith("test_without")} <= named
