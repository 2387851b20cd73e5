"""An access log with one line for each exchange."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, Literal, TypeAlias

from llama._core.errors import ConfigError
from llama._core.server import User
from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama.http._layers.byte_count import ByteCount
from llama.http._layers.request_id import RequestId
from llama.http._messages.body import TransformedBody
from llama.http._messages.error_response import status_of
from llama.http._messages.message import Request, RequestHandler, Response

log = logging.getLogger("llama.access")
Format: TypeAlias = Literal["common", "combined", "json"]
_UNSAFE = {code: f"\\x{code:02x}" for code in [*range(0x20), 0x22, 0x5C, *range(0x7F, 0xA0)]}


@dataclass(frozen=True, slots=True)
class _Entry:
    """The facts about a request, taken before inner layers can change it."""

    time: float
    began: float
    client: str
    method: str
    target: str
    """The request target: the URL of an HTTP/1 request to a forward proxy, else the path."""
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
            request.url if whole or (request.is_absolute_form and request.version.startswith("1")) else path,
            path,
            request.version,
            request.authority,
            headers.get("referer", ""),
            headers.get("user-agent", ""),
        )


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class AccessLog:
    """Logs each exchange once it has ended."""

    inner: RequestHandler
    format: Format
    whole_urls: bool = False

    __input_type__: ClassVar[type] = Request

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
        if body.buffered is None and response.upgrade is None:
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
    """Escape control characters, quotes and backslashes."""
    return text.translate(_UNSAFE)


@layer_factory("http.access_log")
def access_log(format: Format = "combined", *, whole_urls: bool = False) -> Middleware[Request, Response]:
    """Log one line for each exchange to the logger `llama.access`, once the response body has ended or failed.

    `format` is Apache's `common` or `combined`, or `json`. The log record also has the fields as attributes with
    OpenTelemetry's names, `duration` in seconds, and `complete`, which is False if the body broke off. `whole_urls`
    logs the scheme and host before the path, as is always done for HTTP/1 requests to a forward proxy. Values that
    clients send are escaped. An error is logged with its status, and a client that disconnected before the response
    with status 499.

        stack(http.server(), http.access_log("json"), application)
    """
    if format not in ("common", "combined", "json"):
        raise ConfigError(f"http.access_log({format!r}): expected 'common', 'combined' or 'json'")

    def build(inner: RequestHandler) -> RequestHandler:
        return AccessLog(inner, format, whole_urls)

    return named_layer(f"http.access_log({format!r})", build, input_type=Request, inner_type=Request)
