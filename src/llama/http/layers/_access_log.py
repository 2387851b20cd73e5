"""Logs one line for each exchange, once it has ended."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, Literal, TypeAlias

from llama._errors import ConfigError
from llama._server import User
from llama._service import Middleware
from llama._stack import factory, named_layer
from llama.http._body import TransformedBody
from llama.http._byte_count import ByteCount
from llama.http._error_page import status_of
from llama.http._message import Exchange, Request, Response
from llama.http.layers._request_id import RequestId

log = logging.getLogger("llama.access")
Format: TypeAlias = Literal["common", "combined", "json"]
_UNSAFE = {code: f"\\x{code:02x}" for code in [*range(0x20), 0x22, 0x5C, *range(0x7F, 0xA0)]}


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is known at the beginning."""

    time: float
    began: float
    client: str
    method: str
    target: str
    """As it was sent: in HTTP/1 a forward proxy's has the host, later versions have it apart from the path."""
    path: str
    version: str
    authority: str
    referer: str
    agent: str

    @classmethod
    def of(cls, request: Request, whole: bool) -> _Entry:
        headers = request.headers
        path = request.path or request.authority
        return cls(
            time.time(),
            time.perf_counter(),
            request.client.host if request.client is not None else "-",
            request.method,
            request.url if whole or (request.absolute and request.version.startswith("1")) else path,
            path,
            request.version,
            request.authority,
            headers.get("referer", ""),
            headers.get("user-agent", ""),
        )


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class AccessLog:
    """Tells of each exchange what it was and how it ended."""

    inner: Exchange
    format: Format
    whole_urls: bool = False

    __takes__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"http.access_log({self.format!r})"

    async def __call__(self, request: Request, /) -> Response:
        if not log.isEnabledFor(logging.INFO):
            return await self.inner(request)
        entry = _Entry.of(request, self.whole_urls)
        try:
            response = await self.inner(request)
        except BaseException as error:
            status = status_of(error) if isinstance(error, Exception) else 499
            self._log(entry, request, status, ByteCount(ended=True))
            raise
        body = response.body
        count = ByteCount(body.length or 0, ended=True)
        if body.data is None and response.upgrade is None:
            count = ByteCount()
            response.replace_body(TransformedBody(body, count))
        status = response.status
        response.on_close(lambda: self._log(entry, request, status, count))
        return response

    def _log(self, entry: _Entry, request: Request, status: int, count: ByteCount) -> None:
        user = request.extensions.get(User) or "-"
        fields: dict[str, object] = {
            "client.address": entry.client,
            "user.name": str(user),
            "http.request.method": entry.method,
            "url.path": entry.path.partition("?")[0],
            "url.query": entry.path.partition("?")[2],
            "server.address": entry.authority,
            "network.protocol.version": entry.version,
            "user_agent.original": entry.agent,
            "http.response.status_code": status,
            "http.response.body.size": count.bytes,
            "duration": time.perf_counter() - entry.began,
            "complete": count.ended,
        }
        if (identity := request.extensions.get(RequestId)) is not None:
            fields["http.request.id"] = str(identity)
        log.info("%s", self._line(entry, fields, status, count.bytes), extra=fields)

    def _line(self, entry: _Entry, fields: dict[str, object], status: int, size: int) -> str:
        moment = datetime.fromtimestamp(entry.time, UTC)
        if self.format == "json":
            return json.dumps({"time": moment.isoformat(), **fields})
        user = _safe(str(fields["user.name"]))
        asked = _safe(f"{entry.method} {entry.target} HTTP/{entry.version}")
        line = f'{entry.client} - {user} [{moment:%d/%b/%Y:%H:%M:%S %z}] "{asked}" {status} {size or "-"}'
        if self.format == "combined":
            line += f' "{_safe(entry.referer) or "-"}" "{_safe(entry.agent) or "-"}"'
        return line


def _safe(text: str) -> str:
    """Without what could end a line or a quoted part of it."""
    return text.translate(_UNSAFE)


@factory("http.access_log")
def access_log(format: Format = "combined", *, whole_urls: bool = False) -> Middleware[Request, Response]:
    """Log one line for each exchange to `llama.access`, once its body has ended or broken off.

    `format` is `common` or `combined` as Apache has them, or `json`. The record carries the same by OpenTelemetry's
    names, with `duration` in seconds and `complete`. With `whole_urls` scheme and host are before the path, as they
    are anyway where a forward proxy was asked by HTTP/1. What clients send is escaped. An error is logged with the
    status it means, a client that left before the answer as 499.

        stack(http.server(), http.access_log("json"), application)
    """
    if format not in ("common", "combined", "json"):
        raise ConfigError(f"http.access_log({format!r}): expected common, combined or json")

    def build(inner: Exchange) -> Exchange:
        return AccessLog(inner, format, whole_urls)

    return named_layer(f"http.access_log({format!r})", build, takes=Request, gives=Request)
