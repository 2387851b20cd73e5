"""Accept-Encoding: the content codings that a client accepts (RFC 9110 section 12.5.3)."""

from __future__ import annotations

import re
from collections.abc import Sequence

_QUALITY = re.compile(r"[ \t]*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)[ \t]*", re.IGNORECASE)


def coding_weights(accepted: str) -> dict[str, float]:
    """The weight of each content coding that an Accept-Encoding lists."""
    weights: dict[str, float] = {}
    for part in accepted.split(","):
        name, *parameters = part.lower().split(";")
        quality = _QUALITY.fullmatch(parameters[0]) if parameters else None
        if name.strip() and (quality is not None or not parameters):
            weights[name.strip().removeprefix("x-")] = float(quality[1]) if quality is not None else 1.0
    return weights


def accepts_codings(accepted: Sequence[str], codings: Sequence[str]) -> bool:
    """Whether these values of Accept-Encoding accept all of the codings; no value at all accepts any."""
    if not accepted:
        return True
    weights = coding_weights(",".join(accepted))
    rest = weights.get("*", 0.0)
    return all(weights.get(coding.removeprefix("x-"), rest) > 0 for coding in codings)
