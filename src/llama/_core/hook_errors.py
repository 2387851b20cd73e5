"""Exceptions of a hook that would end more than the call: SystemExit and CancelledError."""

from __future__ import annotations

import asyncio

ESCAPING_ERRORS = (SystemExit, asyncio.CancelledError)


def contain_error(error: BaseException, hook: object) -> Exception | None:
    """Return the exception to raise for a hook's error; None for a cancellation of the running task: reraise it.

    A SystemExit would end the program. A CancelledError from something else, such as a future that the hook
    awaited, would be mistaken for a client that has disconnected.
    """
    if isinstance(error, Exception):
        return error
    if isinstance(error, SystemExit):
        failure = RuntimeError(f"the hook {hook} raised {error!r}")
    else:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            return None
        failure = RuntimeError(f"the hook {hook} raised CancelledError, but its task was not cancelled")
    failure.__cause__ = error
    return failure
