"""The fixtures: what markers tell, and what becomes of it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import cast

import pytest

from llama.testing._plugin._proxy import Authority, ProxyOptions, RecordingProxy


@contextmanager
def proxy_for(request: pytest.FixtureRequest, authority: Authority) -> Generator[RecordingProxy]:
    """The proxy of one test."""
    proxy = RecordingProxy(authority, proxy_options(request))
    with proxy.running():
        yield proxy


def proxy_options(request: pytest.FixtureRequest) -> ProxyOptions:
    """What the markers of a test tell, the nearest first."""
    told: dict[str, object] = {}
    item = cast("pytest.Item", request.node)  # pyright: ignore[reportUnknownMemberType]  # pytest leaves it open
    for marker in item.iter_markers("llama_proxy"):
        told = {**marker.kwargs, **told}
        if marker.args:
            raise pytest.UsageError("@pytest.mark.llama_proxy(...) takes keywords only")
    try:
        return ProxyOptions(**told)  # type: ignore[arg-type]
    except TypeError:
        names = ", ".join(sorted(told))
        raise pytest.UsageError(f"@pytest.mark.llama_proxy({names}): expected {_KNOWN}") from None


_KNOWN = "layers, upstream_ca, record_bodies, connect"
