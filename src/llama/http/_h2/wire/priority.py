"""The priority of a response, as the client requests it (RFC 9218 section 4)."""

from __future__ import annotations

import re

URGENCY = 3
"""The default urgency; 0 is the most urgent, 7 the least."""

_MEMBER = re.compile(r"\s*(?:u=([0-7])|i(?:=\?([01]))?)\s*(?:;[^,]*)?")


def parse_priority(value: str) -> tuple[int, bool]:
    """Return the urgency and the incremental flag of a Priority field. Ignores unknown members."""
    urgency, incremental = URGENCY, False
    for member in value[:256].split(","):
        match = _MEMBER.fullmatch(member)
        if match is None:
            continue
        if match[1] is not None:
            urgency = int(match[1])
        else:
            incremental = match[2] != "0"
    return urgency, incremental
