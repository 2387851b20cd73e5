"""Fixtures for the whole suite."""

from collections.abc import Generator, Iterator

import pytest

from tests import leaks

failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[failed] = report.failed
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "soak" not in str(config.getoption("markexpr")):
        slow = [item for item in items if item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test, descriptors, threads, children and tasks are back to where they were.

    A test that fails is not asked: its traceback holds what it had in its hands.
    """
    before = leaks.everything()
    with leaks.complaints() as found:
        yield
        if request.node.stash.get(failed, False):
            return
        left = leaks.left_since(before) + found
    if left:
        pytest.fail("the test left behind:\n  " + "\n  ".join(left), pytrace=False)
