"""When a call is over: for some outputs later than when they were returned."""

from __future__ import annotations

from collections.abc import Callable


def at_end(output: object, callback: Callable[[], object], /) -> None:
    """Call back once an output has ended: by its own `on_close`, as a response's with its body, else now."""
    on_close = getattr(output, "on_close", None)
    if on_close is None:
        callback()
    else:
        on_close(callback)
