"""Cookies as HAR has them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

_FLAGS = {"httponly": "httpOnly", "secure": "secure"}
_SETTINGS = {"path": "path", "domain": "domain", "samesite": "sameSite"}
_MAX_COOKIE = 100 * 366 * 86400


def cookies(fields: Sequence[str]) -> list[dict[str, str]]:
    """Those of Cookie fields."""
    parts = [part.strip().partition("=") for value in fields for part in value.split(";") if part.strip()]
    return [{"name": name, "value": value} for name, _, value in parts]


def set_cookies(fields: Sequence[str], at: float) -> list[dict[str, str | bool]]:
    """Those of Set-Cookie fields, with their attributes; `at` is when they were set, in seconds since 1970."""
    return [_set_cookie(each, at) for each in fields]


def _set_cookie(field: str, at: float) -> dict[str, str | bool]:
    name, _, rest = field.partition("=")
    value, *attributes = rest.split(";")
    made: dict[str, str | bool] = {"name": name.strip(), "value": value.strip()}
    age: str | None = None
    for attribute in attributes:
        key, _, setting = (each.strip() for each in attribute.partition("="))
        key = key.lower()
        if key in _SETTINGS:
            made[_SETTINGS[key]] = setting
        elif key in _FLAGS:
            made[_FLAGS[key]] = True
        elif key == "max-age":
            age = setting
        elif key == "expires":
            made["expires"] = _expires(setting)
    if (
        age is not None and age.removeprefix("-").isdecimal()
    ):  # it goes before Expires (RFC 6265, section 5.3)
        seconds = max(-_MAX_COOKIE, min(int(age[:12]), _MAX_COOKIE))
        made["expires"] = (datetime.fromtimestamp(at, UTC) + timedelta(seconds=seconds)).isoformat()
    if not made.get("expires", "some"):
        del made["expires"]
    return made


def _expires(date: str) -> str:
    """In ISO 8601; empty for what is no date."""
    try:
        found = parsedate_to_datetime(date)
    except ValueError:
        return ""
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).isoformat()
