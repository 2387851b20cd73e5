"""While a process serves, the garbage collector looks for cycles less often."""

import gc
from collections.abc import Generator

import pytest

from llama._runtime.gc_tuning import YOUNG_THRESHOLD, tuned_gc


@pytest.fixture(autouse=True)
def thresholds() -> Generator[None]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.enable()
    gc.unfreeze()
    gc.set_threshold(*before)


def test_the_thresholds_are_raised_within_the_block_and_restored_after() -> None:
    with tuned_gc():
        assert gc.get_threshold() == (YOUNG_THRESHOLD, 10, 10)
        assert gc.get_freeze_count() > 0
    assert gc.get_threshold() == (700, 10, 10)
    assert gc.get_freeze_count() == 0


def test_thresholds_set_by_the_program_are_kept() -> None:
    gc.set_threshold(900, 5, 5)
    with tuned_gc():
        assert gc.get_threshold() == (900, 5, 5)
        assert gc.get_freeze_count() == 0


def test_a_disabled_collector_stays_disabled() -> None:
    gc.disable()
    with tuned_gc():
        assert not gc.isenabled()
        assert gc.get_threshold() == (700, 10, 10)
