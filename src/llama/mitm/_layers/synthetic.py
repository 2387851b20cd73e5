"""Marks on responses that did not come from the upstream."""

from __future__ import annotations

from llama.http import Response


class SyntheticReason(str):
    """The origin of a response that is not the upstream's, in its extensions."""

    __slots__ = ()


def mark_synthetic(response: Response, why: str) -> Response:
    """Set a Mark in a response's extensions and return the response."""
    response.extensions.set(SyntheticReason(why))
    return response
