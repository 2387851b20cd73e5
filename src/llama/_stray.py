"""Exceptions of a hook that would end more than what the hook was called for."""

from __future__ import annotations

import asyncio

Stray = (SystemExit, asyncio.CancelledError)


def contained(error: BaseException, hook: object) -> Exception | None:
    """What to raise for an error; None where it is a cancellation of the running task, to be raised as it is.

    A SystemExit would end the program, and a CancelledError that comes of something else that was cancelled, such as
    a future of the hook's own, would pass for a client that has left.
    """
    if isinstance(error, Exception):
        return error
    if isinstance(error, SystemExit):
        failure = RuntimeError(f"the hook {hook} raised {error!r}")
    else:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            return None
        failure = RuntimeError(f"the hook {hook} was cancelled, by nobody here")
    failure.__cause__ = error
    return failure
