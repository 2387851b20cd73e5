"""The alternative services that origins advertise with Alt-Svc (RFC 7838)."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import TypeVar

from llama._core.errors import ConfigError
from llama._core.target import Target, split_address
from llama.http._messages.origin import Origin

V = TypeVar("V")
MAX_ORIGINS = 1024
DEFAULT_MAX_AGE = 86_400
BROKEN_TTL = 300.0  # seconds without a retry after an alternative failed
_ENTRY = re.compile(r'\s*([A-Za-z0-9%.-]+)="([^"]*)"((?:\s*;\s*[a-z]+=(?:"[^"]*"|[^;,"]*))*)\s*(?:,|$)')
_AGE = re.compile(r"\bma=\"?(\d{1,9})")


class AltSvcCache:
    """A bounded cache of advertised HTTP/3 alternatives; each expires after the `ma` that its origin sent."""

    def __init__(self) -> None:
        self._known: OrderedDict[Origin, tuple[float, Origin]] = OrderedDict()
        self._broken: OrderedDict[Origin, float] = OrderedDict()

    def get(self, origin: Origin) -> Origin | None:
        """Return the HTTP/3 alternative of an origin; None if it advertised none or the last one failed recently."""
        found = self._known.get(origin)
        if found is None or self._broken.get(origin, 0.0) > time.monotonic():
            return None
        if found[0] < time.monotonic():
            del self._known[origin]
            return None
        return found[1]

    def update(self, origin: Origin, values: Iterable[str]) -> None:
        """Store the first HTTP/3 alternative in a response's Alt-Svc fields. Skips entries that it cannot parse."""
        text = ",".join(values).strip()
        if text == "clear":
            self._known.pop(origin, None)
            return
        for match in _ENTRY.finditer(text):
            if match[1] != "h3":
                continue
            try:
                host, port = split_address(match[2])
            except ConfigError:
                continue
            age = _AGE.search(match[3])
            until = time.monotonic() + (int(age[1]) if age else DEFAULT_MAX_AGE)
            # Restrictions on the origin's target also apply to the alternative, whatever its address.
            target = Target(host or origin.target.host, port, origin.target.extensions)
            _keep(self._known, origin, (until, Origin("https", target)))
            return

    def mark_broken(self, origin: Origin) -> None:
        """The alternative could not be reached."""
        _keep(self._broken, origin, time.monotonic() + BROKEN_TTL)


def _keep(table: OrderedDict[Origin, V], origin: Origin, value: V) -> None:
    table.pop(origin, None)
    table[origin] = value
    if len(table) > MAX_ORIGINS:
        table.popitem(last=False)
