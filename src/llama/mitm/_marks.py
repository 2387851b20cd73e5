"""What is to be seen of a response that did not come from the upstream."""

from __future__ import annotations

from llama.http import Response


class Mark(str):
    """Why a response is not the upstream's, in its extensions."""

    __slots__ = ()


def marked(response: Response, why: str) -> Response:
    """The same response, which says why it is not the upstream's."""
    response.extensions.set(Mark(why))
    return response
