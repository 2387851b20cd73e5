"""The cyclic garbage collector of a process that serves."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager

YOUNG_THRESHOLD = 10_000
"""New objects per collection. CPython's default of 700 is a few requests, whose objects are still in use."""
_DEFAULTS = {(700, 10, 10), (2000, 10, 10), (2000, 10, 0)}  # the defaults of the CPython versions


@contextmanager
def tuned_gc() -> Generator[None]:
    """Collect cycles less often within the block, and exclude the objects that existed before it.

    Does nothing if the program has set other thresholds or disabled the collector.
    """
    before = gc.get_threshold()
    if before not in _DEFAULTS or not gc.isenabled():
        yield
        return
    gc.set_threshold(YOUNG_THRESHOLD, *before[1:])
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
