"""Times of exchanges as HAR has them: milliseconds, -1 for what there was none of, TLS within `connect` too."""

from __future__ import annotations

from collections.abc import Mapping

from llama.mitm._records import Recorded

NONE = -1.0


def to_timings(recorded: Recorded) -> dict[str, float]:
    """The phases of an exchange; those that opened a connection are in the first one that it carried."""
    waited = recorded.wait - recorded.send - (0.0 if recorded.ahead else _dialling(recorded))
    parts = [each for each in (recorded.connect, recorded.tls) if each is not None]
    return {
        "blocked": NONE,
        "dns": _milliseconds(recorded.dns),
        "connect": _milliseconds(sum(parts) if parts else None),
        "ssl": _milliseconds(recorded.tls),
        "send": _milliseconds(recorded.send),
        "wait": _milliseconds(max(0.0, waited)),
        "receive": _milliseconds(recorded.receive),
    }


def total(timings: Mapping[str, float]) -> float:
    """What an entry's `time` is."""
    return round(sum(each for name, each in timings.items() if name != "ssl" and each > 0), 3)


def _dialling(recorded: Recorded) -> float:
    return sum(each or 0.0 for each in (recorded.dns, recorded.connect, recorded.tls))


def _milliseconds(seconds: float | None) -> float:
    return NONE if seconds is None else round(seconds * 1000, 3)


def set_timings(recorded: Recorded, timings: Mapping[str, object], *, ahead: bool) -> None:
    """Take the times of an exchange from those of an entry, whoever wrote it."""
    recorded.ahead = ahead
    recorded.dns, recorded.tls = _seconds(timings, "dns"), _seconds(timings, "ssl")
    connect = _seconds(timings, "connect")
    recorded.connect = None if connect is None else max(0.0, connect - (recorded.tls or 0.0))
    recorded.send = _seconds(timings, "send") or 0.0
    recorded.receive = _seconds(timings, "receive") or 0.0
    waited = _seconds(timings, "wait") or 0.0
    recorded.wait = waited + recorded.send + (0.0 if ahead else _dialling(recorded))


def _seconds(timings: Mapping[str, object], name: str) -> float | None:
    value = timings.get(name)
    return value / 1000 if isinstance(value, int | float) and value >= 0 else None
