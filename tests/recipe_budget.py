"""Warns at the end about recipes whose own tests take more than 3 processor seconds together.

A test belongs to the recipe that its id names, if it names exactly one. Shared fixtures do not count.
"""

import re
import time
from collections import defaultdict

import pytest

from schemas.recipes import RECIPES

SECONDS = 3.0
_PROPERTY = "processor_seconds"
_NAMES = [(name, re.compile(rf"(?<![a-z0-9]){name}(?![a-z0-9])")) for name in sorted(RECIPES, key=len)]
_spent: dict[str, float] = defaultdict(float)


def recipe_of(test_id: str) -> str | None:
    """The only recipe that a test's id names, or None."""
    found = [name for name, pattern in _NAMES if pattern.search(test_id.lower())]
    longest = [name for name in found if not any(name != other and name in other for other in found)]
    return longest[0] if len(longest) == 1 else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    began = time.process_time()
    try:
        return (yield)
    finally:
        # User properties reach the process that prints the summary.
        item.user_properties.append((_PROPERTY, time.process_time() - began))


def pytest_runtest_logreport(report):
    recipe = recipe_of(report.nodeid)
    if report.when == "call" and recipe is not None:
        _spent[recipe] += dict(report.user_properties).get(_PROPERTY, 0.0)


def pytest_terminal_summary(terminalreporter):
    for recipe, seconds in sorted(_spent.items(), key=lambda pair: -pair[1]):
        if seconds > SECONDS:
            terminalreporter.write_line(
                f"warning: the tests of recipe {recipe} took {seconds:.1f} processor seconds of {SECONDS:.0f}",
                yellow=True,
            )
