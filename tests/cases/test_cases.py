"""Every input that people brought gives what is right for its kind."""

import pytest

from tests.cases.right import RIGHT, judge
from tests.cases.runs import CASES

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(not CASES.is_dir(), reason="the folder of cases is not beside the repository"),
]


@pytest.fixture(scope="module", autouse=True)
def _spark(spark):
    """The session that ingest finds."""


def test_every_case_has_its_right_behaviour():
    assert {path.name for path in CASES.iterdir() if path.is_dir()} == set(RIGHT)


@pytest.mark.parametrize("name", sorted(RIGHT))
def test_case(name: str):
    verdict = judge(name)
    assert verdict.ok, f"{name}: right is {verdict.right}; it gives: {verdict.gives}"
