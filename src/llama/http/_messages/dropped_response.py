"""Responses without an owner, because the handler that held them failed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import cast

from llama.http._messages.message import Response

log = logging.getLogger("llama.server")
_MAX_DEPTH = 16


async def close_responses_in_traceback(error: BaseException) -> None:
    """Close the responses in the local variables of the frames in an exception's traceback.

    Reference counting would free them, but a log record, or other code that keeps the traceback, keeps them alive.
    """
    for response in {id(each): each for each in _found(error)}.values():
        try:
            await response.aclose()
        except Exception:
            log.exception("cannot close %r, left by a failed handler", response)


def _found(error: BaseException) -> Iterator[Response]:
    for each in _causes(error):
        trace = each.__traceback__
        while trace is not None:
            for value in trace.tb_frame.f_locals.values():
                if isinstance(value, Response):
                    yield value
            trace = trace.tb_next


def _causes(error: BaseException) -> list[BaseException]:
    """Return an exception with its causes, contexts and group members, up to about _MAX_DEPTH of them."""
    found = [error]
    for each in found:
        others = [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            others += cast("BaseExceptionGroup[BaseException]", each).exceptions
        found += [other for other in others if other is not None and other not in found]
        if len(found) >= _MAX_DEPTH:
            break
    return found
