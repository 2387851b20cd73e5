"""Responses that nobody owns any more, because what held them failed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import cast

from llama.http._message import Response

log = logging.getLogger("llama.server")
_DEEPEST = 16


async def close_dropped(error: BaseException) -> None:
    """Close the responses in the local variables of the calls that an exception has ended.

    They would be free by themselves, but a log record or whoever else keeps the traceback keeps them too.
    """
    for response in {id(each): each for each in _found(error)}.values():
        try:
            await response.aclose()
        except Exception:
            log.exception("%r, which a failed exchange has left, could not be closed", response)


def _found(error: BaseException) -> Iterator[Response]:
    for each in _causes(error):
        trace = each.__traceback__
        while trace is not None:
            for value in trace.tb_frame.f_locals.values():
                if isinstance(value, Response):
                    yield value
            trace = trace.tb_next


def _causes(error: BaseException) -> list[BaseException]:
    """An exception, those it comes from and those it holds; not more than a few of them."""
    found = [error]
    for each in found:
        others = [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            others += cast("BaseExceptionGroup[BaseException]", each).exceptions
        found += [other for other in others if other is not None and other not in found]
        if len(found) >= _DEEPEST:
            break
    return found
