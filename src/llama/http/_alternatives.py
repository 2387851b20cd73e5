"""Where else origins can be reached, as they say by Alt-Svc (RFC 7838)."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import TypeVar

from llama._errors import ConfigError
from llama._target import Target, split_address
from llama.http._origin import Origin

V = TypeVar("V")
KNOWN = 1024
LIFE = 86_400
BROKEN = 300.0  # seconds for which an alternative that failed is left alone
_ENTRY = re.compile(r'\s*([A-Za-z0-9%.-]+)="([^"]*)"((?:\s*;\s*[a-z]+=(?:"[^"]*"|[^;,"]*))*)\s*(?:,|$)')
_AGE = re.compile(r"\bma=\"?(\d{1,9})")


class Alternatives:
    """What origins said, bounded, each for as long as it said; HTTP/3 only."""

    def __init__(self) -> None:
        self._known: OrderedDict[Origin, tuple[float, Origin]] = OrderedDict()
        self._broken: OrderedDict[Origin, float] = OrderedDict()

    def get(self, origin: Origin) -> Origin | None:
        """Where to reach an origin by HTTP/3; None where it did not say, or it did not work lately."""
        found = self._known.get(origin)
        if found is None or self._broken.get(origin, 0.0) > time.monotonic():
            return None
        if found[0] < time.monotonic():
            del self._known[origin]
            return None
        return found[1]

    def learn(self, origin: Origin, values: Iterable[str]) -> None:
        """Take note of a response's Alt-Svc fields; what cannot be read is left out."""
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
            until = time.monotonic() + (int(age[1]) if age else LIFE)
            # What the origin's target was narrowed to holds for the alternative, whatever address it has.
            target = Target(host or origin.target.host, port, origin.target.extensions)
            _keep(self._known, origin, (until, Origin("https", target)))
            return

    def failed(self, origin: Origin) -> None:
        """The alternative could not be reached."""
        _keep(self._broken, origin, time.monotonic() + BROKEN)


def _keep(table: OrderedDict[Origin, V], origin: Origin, value: V) -> None:
    table.pop(origin, None)
    table[origin] = value
    if len(table) > KNOWN:
        table.popitem(last=False)
