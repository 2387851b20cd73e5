"""Callbacks at the end of a call, which for some outputs is later than their return."""

from __future__ import annotations

from collections.abc import Callable


def when_closed(output: object, callback: Callable[[], object], /) -> None:
    """Call back when an output ends: by its `on_close`, such as a response's at the end of its body, else at once."""
    on_close = getattr(output, "on_close", None)
    if on_close is None:
        callback()
    else:
        on_close(callback)
