"""The cyclic garbage collector of a process that serves."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager

YOUNG = 10_000
"""New objects before the collector looks at them. Python's own 700 are a few requests at a time, which are in use."""
_DEFAULTS = {(700, 10, 10), (2000, 10, 10), (2000, 10, 0)}  # of the versions of CPython


@contextmanager
def seldom_collecting() -> Generator[None]:
    """Within the block, look for cycles less often, and not among what was there before.

    A program that has set thresholds of its own, or switched the collector off, keeps them.
    """
    before = gc.get_threshold()
    if before not in _DEFAULTS or not gc.isenabled():
        yield
        return
    gc.set_threshold(YOUNG, *before[1:])
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
