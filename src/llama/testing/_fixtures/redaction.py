"""Removes secrets from cassettes before they are written, and from requests before they are compared."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias, cast
from urllib.parse import quote, quote_plus, unquote_plus

from llama.http import Headers
from llama.mitm import Recorded, RecordedBody, RecordedMessage

SECRET_HEADERS = (
    "Authorization",
    "Proxy-Authorization",
    "Cookie",
    "Set-Cookie",
    "X-Api-Key",
    "X-Auth-Token",
    "X-Amz-Security-Token",
)
LONG_ENOUGH = 8  # minimum characters of a secret to replace everywhere: shorter ones may be words
Clean: TypeAlias = Callable[[Recorded], Recorded | None]
_Json: TypeAlias = "dict[str, _Json] | list[_Json] | str | float | bool | None"
_DATA = re.compile(rb"^(data: ?)?(.+?)(\r?)$")


@dataclass(frozen=True, slots=True)
class Redaction:
    """Rules for removing secrets from a cassette before it is written.

    Replaces the values of `headers` (of cookies and of `Authorization: Bearer ...` all but the names), parameters of
    the `query`, and `fields` of JSON (at any depth, also in event streams and WebSocket messages) and of forms, in
    requests and responses. A value of at least 8 characters that a rule has found is replaced everywhere else in the
    cassette. `function` may then change each exchange; if it returns None, the exchange is left out.

        Redaction(query=["api_key"], fields=["access_token", "password"])
    """

    headers: Collection[str] = SECRET_HEADERS
    query: Collection[str] = ()
    fields: Collection[str] = ()
    function: Clean | None = None
    replacement: str = "REDACTED"

    def __post_init__(self) -> None:
        for name in ("headers", "query", "fields"):
            if isinstance(getattr(self, name), str):
                raise TypeError(f"Redaction({name}={getattr(self, name)!r}): expected a list")

    def clean(self, exchanges: Iterable[Recorded]) -> list[Recorded]:
        """Return redacted copies of exchanges."""
        cleaner = _Cleaner(self)
        made = [cleaner.by_rule(each) for each in exchanges]
        everywhere = [cleaner.everywhere(each) for each in made]
        if self.function is None:
            return everywhere
        return [kept for each in everywhere if (kept := self.function(each)) is not None]

    def clean_message(self, data: str | bytes) -> str | bytes:
        """Return a redacted WebSocket message."""
        cleaner = _Cleaner(self)
        return cleaner.message(data)


class _Cleaner:
    """Applies the rules, and collects the values that they removed."""

    def __init__(self, rules: Redaction) -> None:
        self._with = rules.replacement
        self._headers = {each.lower() for each in rules.headers}
        self._query = {each.lower() for each in rules.query}
        self._fields = {each.lower() for each in rules.fields}
        self._found: set[str] = set()

    # by rule

    def by_rule(self, recorded: Recorded) -> Recorded:
        """Return a redacted copy."""
        base, mark, query = recorded.url.partition("?")
        return replace(
            recorded,
            url=base + mark + self._pairs(query, self._query),
            headers=self._of_headers(recorded.headers),
            body=self._of_body(recorded.body, recorded.headers),
            response_headers=self._of_headers(recorded.response_headers),
            response_body=self._of_body(recorded.response_body, recorded.response_headers),
            messages=[
                RecordedMessage(each.from_client, each.time, self.message(each.data))
                for each in recorded.messages
            ],
        )

    def _hide(self, value: str) -> str:
        if value and value != self._with:
            self._found.add(value)
        return self._with

    def _of_headers(self, headers: Headers) -> Headers:
        return Headers(
            (name, self._value(name.lower(), value) if name.lower() in self._headers else value)
            for name, value in headers
        )

    def _value(self, name: str, value: str) -> str:
        if name == "cookie":
            return "; ".join(self._cookie(each.strip()) for each in value.split(";") if each.strip())
        if name == "set-cookie":
            cookie, semicolon, rest = value.partition(";")
            return self._cookie(cookie) + semicolon + rest
        scheme, space, credentials = value.partition(" ")
        if name.endswith("authorization") and space:
            if scheme.lower() == "basic":
                self._note_basic(credentials)
            return f"{scheme} {self._hide(credentials)}"
        return self._hide(value)

    def _cookie(self, pair: str) -> str:
        name, equals, value = pair.partition("=")
        return f"{name}={self._hide(value)}" if equals else self._hide(pair)

    def _note_basic(self, credentials: str) -> None:
        try:
            _, _, password = base64.b64decode(credentials).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return
        self._hide(password)

    def _pairs(self, text: str, names: set[str]) -> str:
        """Replace the values of these names in `a=1&b=2`; everything else stays unchanged."""
        if not names:
            return text
        made: list[str] = []
        for part in text.split("&"):
            name, equals, value = part.partition("=")
            if equals and unquote_plus(name).lower() in names:
                self._hide(unquote_plus(value))
                part = f"{name}={self._with}"
            made.append(part)
        return "&".join(made)

    def _of_body(self, body: RecordedBody, headers: Headers) -> RecordedBody:
        data = body.read()
        if body.trailers is not None:
            body = replace(body, trailers=self._of_headers(body.trailers))
        if not self._fields or not data or body.encoded:
            return replace(body, data=data, file=None)
        kind = headers.get("content-type", "").lower()
        if "x-www-form-urlencoded" in kind:
            data = self._pairs(data.decode("latin-1"), self._fields).encode("latin-1")
        else:
            data = self._text(data)
        return replace(body, data=data, file=None, size=len(data))

    def _text(self, data: bytes) -> bytes:
        """Redact JSON, or lines of JSON, possibly in an event stream."""
        whole = self._json(data)
        if whole is not None:
            return whole
        lines = data.split(b"\n")
        for number, line in enumerate(lines):
            match = _DATA.match(line)
            made = self._json(match[2]) if match else None
            if match and made is not None:
                lines[number] = (match[1] or b"") + made + match[3]
        return b"\n".join(lines)

    def _json(self, data: bytes) -> bytes | None:
        """Redact the fields of JSON text; None if it is not JSON."""
        if data.lstrip()[:1] not in (b"{", b"["):
            return None
        try:
            before = cast("_Json", json.loads(data))
        except (ValueError, RecursionError):
            return None
        after = self._walk(before, hide=False)
        return data if after == before else json.dumps(after, ensure_ascii=False).encode()

    def _walk(self, value: _Json, *, hide: bool) -> _Json:
        if isinstance(value, dict):
            return {
                name: self._walk(each, hide=hide or name.lower() in self._fields)
                for name, each in value.items()
            }
        if isinstance(value, list):
            return [self._walk(each, hide=hide) for each in value]
        if not hide or value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._hide(value)
        self._hide(str(value))
        return 0

    def message(self, data: str | bytes) -> str | bytes:
        """Redact a WebSocket message."""
        if not self._fields:
            return data
        made = self._text(data.encode() if isinstance(data, str) else data)
        return made.decode() if isinstance(data, str) else made

    # everywhere

    def everywhere(self, recorded: Recorded) -> Recorded:
        """Return a copy without the values that the rules found elsewhere."""
        spellings = {
            spelling
            for each in self._found
            if len(each) >= LONG_ENOUGH
            for spelling in (each, quote(each, safe=""), quote_plus(each), json.dumps(each)[1:-1])
        }
        if not spellings:
            return recorded
        longest_first = sorted(spellings, key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, longest_first)))
        in_bytes = re.compile(b"|".join(re.escape(each.encode()) for each in longest_first))
        replacement = self._with.encode()

        def text(value: str) -> str:
            return pattern.sub(lambda _: self._with, value)

        def body(before: RecordedBody) -> RecordedBody:
            data = in_bytes.sub(lambda _: replacement, before.data or b"")
            trailers = None if before.trailers is None else headers(before.trailers)
            return replace(before, data=data, size=len(data), trailers=trailers)

        def headers(before: Headers) -> Headers:
            return Headers((name, text(value)) for name, value in before)

        return replace(
            recorded,
            url=text(recorded.url),
            headers=headers(recorded.headers),
            body=body(recorded.body),
            response_headers=headers(recorded.response_headers),
            response_body=body(recorded.response_body),
            messages=[
                replace(
                    each,
                    data=text(each.data)
                    if isinstance(each.data, str)
                    else in_bytes.sub(lambda _: replacement, each.data),
                )
                for each in recorded.messages
            ],
        )
