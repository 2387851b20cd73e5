"""HAR 1.2: what was recorded as JSON, and back (http://www.softwareishard.com/blog/har-12-spec/)."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import TypeAlias, cast
from urllib.parse import parse_qsl, urlsplit

from llama._core.errors import ConfigError
from llama.http import Headers
from llama.mitm._har.cookies import cookies, set_cookies
from llama.mitm._har.timings import set_timings, to_timings, total
from llama.mitm._records import Recorded, RecordedBody, RecordedMessage

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
_TEXT = ("text/", "+json", "+xml", "/json", "/xml", "javascript", "x-www-form-urlencoded", "graphql")


def to_entry(recorded: Recorded, folder: Path) -> dict[str, Json]:
    """An entry of a HAR log; files are named as seen from a folder."""
    timings = to_timings(recorded)
    entry: dict[str, Json] = {
        "startedDateTime": datetime.fromtimestamp(recorded.started, UTC).isoformat(timespec="milliseconds"),
        "time": total(timings),
        "request": _request(recorded, folder),
        "response": _response(recorded, folder),
        "cache": {},
        "timings": timings,
    }
    if recorded.address:
        entry["serverIPAddress"] = recorded.address
    if recorded.port:
        entry["connection"] = str(recorded.port)
    if recorded.connection:
        entry["_connectionId"] = recorded.connection
    if recorded.ahead:
        entry["_connectedAhead"] = True
    if recorded.server:
        entry["_server"] = recorded.server
    if recorded.client:
        entry["_client"] = recorded.client
    if recorded.interleaving:
        entry["_interleaving"] = recorded.interleaving
    if recorded.error:
        entry["_error"] = recorded.error
    if recorded.messages or recorded.close_code:
        entry["_resourceType"] = "websocket"
        if recorded.close_code:
            entry["_webSocketClose"] = _close(recorded)
        entry["_webSocketMessages"] = [_message(each) for each in recorded.messages]
        if recorded.dropped_messages:
            entry["_droppedMessages"] = recorded.dropped_messages
            entry["comment"] = f"{recorded.dropped_messages} more messages passed"
    return entry


def _request(recorded: Recorded, folder: Path) -> dict[str, Json]:
    made: dict[str, Json] = {
        "method": recorded.method,
        "url": recorded.url,
        "httpVersion": _version(recorded.version),
        "cookies": cookies(recorded.headers.get_all("cookie")),
        "headers": _headers(recorded.headers),
        "queryString": _pairs(parse_qsl(urlsplit(recorded.url).query, keep_blank_values=True)),
        "headersSize": -1,
        "bodySize": recorded.body.wire_size,
    }
    if recorded.body.size:  # the format has no base64 for these: text wherever it is
        kind = recorded.headers.get("content-type", "application/octet-stream")
        params, content = _params(recorded.body, kind), _content(recorded.body, "text/", folder)
        made["postData"] = {"mimeType": kind, "params": params, "text": "", **content}
    elif not recorded.body.complete:  # none of its bytes passed
        made["postData"] = {"mimeType": "x-unknown", "params": [], "text": "", "_truncated": True}
    if recorded.body.trailers:
        made["_trailers"] = _headers(recorded.body.trailers)
    return made


def _response(recorded: Recorded, folder: Path) -> dict[str, Json]:
    headers, body = recorded.response_headers, recorded.response_body
    kind = headers.get("content-type", "application/octet-stream" if body.size else "x-unknown")
    made: dict[str, Json] = {
        "status": recorded.status,
        "statusText": recorded.reason or _PHRASES.get(recorded.status, ""),
        "httpVersion": _version(recorded.response_version),
        "cookies": set_cookies(headers.get_all("set-cookie"), recorded.started),
        "headers": _headers(headers),
        "content": {
            "size": body.size,
            "compression": max(0, body.size - body.wire_size),
            "mimeType": kind,
            **_content(body, kind, folder),
        },
        "redirectURL": headers.get("location", ""),
        "headersSize": -1,
        "bodySize": body.wire_size if recorded.status else -1,
        "_transferSize": body.wire_size,
    }
    if body.trailers:
        made["_trailers"] = _headers(body.trailers)
    if recorded.error:  # where Chromium looks for it
        made["_error"] = recorded.error
    return made


_PHRASES = {each.value: each.phrase for each in HTTPStatus}


def _version(version: str) -> str:
    return {"2": "HTTP/2.0", "3": "HTTP/3.0"}.get(version, f"HTTP/{version}" if version else "")


def _headers(headers: Headers) -> Json:
    return _pairs(headers)


def _pairs(pairs: Headers | Sequence[tuple[str, str]]) -> Json:
    return [{"name": name, "value": value} for name, value in pairs]


def _params(body: RecordedBody, kind: str) -> Json:
    """What a form has posted, beside its text, as browsers write both."""
    if "x-www-form-urlencoded" not in kind.lower() or not body.data or body.encoded:
        return []
    return _pairs(parse_qsl(body.data.decode(errors="replace"), keep_blank_values=True))


def _content(body: RecordedBody, kind: str, folder: Path) -> dict[str, Json]:
    """The bytes themselves: as text where they are, in base64, or the file that has them."""
    made: dict[str, Json] = {}
    if not body.complete:
        made["comment"] = "broken off"
    elif body.truncated:
        made["comment"] = "truncated"
    if body.truncated or not body.complete:
        made["_truncated"] = True
    if body.encoded:
        made["_encoded"] = True
    if body.file is not None:
        made["_file"] = os.path.relpath(body.file, folder)
        return made
    data = body.data or b""
    if not data:
        return {**made, "text": ""}
    if not body.encoded and any(each in kind.lower() for each in _TEXT):
        try:
            return {**made, "text": data.decode()}
        except UnicodeDecodeError:
            pass
    return {**made, "text": base64.b64encode(data).decode(), "encoding": "base64"}


def _close(recorded: Recorded) -> Json:
    sides = {True: "send", False: "receive", None: "proxy"}
    return {"type": sides[recorded.closed_by_client], "code": recorded.close_code}


def _message(message: RecordedMessage) -> Json:
    text = isinstance(message.data, str)
    data = message.data if isinstance(message.data, str) else base64.b64encode(message.data).decode()
    kind = "send" if message.from_client else "receive"
    return {"type": kind, "time": message.time, "opcode": 1 if text else 2, "data": data}


# and back


def read_har(path: Path) -> list[Recorded]:
    """The exchanges of a HAR file, whoever wrote it; ConfigError where it is none."""
    try:
        log = cast("Mapping[str, Mapping[str, object]]", json.loads(path.read_bytes()))["log"]
        entries = cast("Sequence[Mapping[str, object]]", log["entries"])
        return [_recorded(each, path.parent) for each in entries]
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is no HAR file: {type(error).__name__}: {error}") from None


def _recorded(entry: Mapping[str, object], folder: Path) -> Recorded:
    request = cast("Mapping[str, object]", entry["request"])
    response = cast("Mapping[str, object]", entry["response"])
    timings = cast("Mapping[str, object]", entry.get("timings") or {})
    content = cast("Mapping[str, object]", response.get("content") or {})
    posted = cast("Mapping[str, object]", request.get("postData") or {})
    closed = cast("Mapping[str, object]", entry.get("_webSocketClose") or {})
    recorded = Recorded(
        started=datetime.fromisoformat(str(entry["startedDateTime"])).timestamp(),
        method=str(request["method"]),
        url=str(request["url"]),
        version=str(request.get("httpVersion", "")).lower().removeprefix("http/").removesuffix(".0"),
        headers=_read_headers(request),
        body=_read_body(posted, request, folder),
        status=int(cast("int", response["status"])),
        reason=str(response.get("statusText", "")),
        response_version=str(response.get("httpVersion", "")).lower().removeprefix("http/"),
        response_headers=_read_headers(response),
        response_body=_read_body(content, response, folder),
        connection=str(entry.get("_connectionId", "")),
        address=str(entry.get("serverIPAddress", "")),
        port=_port(entry.get("connection")),
        error=str(entry.get("_error", "")),
        interleaving=_read_interleaving(entry.get("_interleaving")),
        dropped_messages=int(cast("int", entry.get("_droppedMessages", 0))),
        messages=[_read_message(each) for each in _list(entry.get("_webSocketMessages"))],
        close_code=int(cast("int", closed.get("code", 0))),
        closed_by_client={"send": True, "receive": False}.get(str(closed.get("type"))),
    )
    set_timings(recorded, timings, ahead=bool(entry.get("_connectedAhead")))
    return recorded


def _port(value: object) -> int:
    """The server's port, which Chromium takes it for; others have numbers of their own there."""
    text = str(value)
    return int(text) if text.isdecimal() and len(text) < 6 else 0


def _list(value: object) -> list[Mapping[str, object]]:
    return list(cast("Sequence[Mapping[str, object]]", value or ()))


def _read_interleaving(value: object) -> list[tuple[int, int]]:
    return [(int(sent), int(passed)) for sent, passed in cast("Sequence[tuple[int, int]]", value or ())]


def _read_headers(message: Mapping[str, object], field: str = "headers") -> Headers:
    """The fields; those of HTTP/2 that begin with a colon are in the URL and the status already."""
    pairs = [(str(each["name"]), str(each["value"])) for each in _list(message.get(field))]
    return Headers((name, value) for name, value in pairs if not name.startswith(":"))


def _read_body(content: Mapping[str, object], message: Mapping[str, object], folder: Path) -> RecordedBody:
    body = _read_content(content, folder)
    body.complete = not content.get("_truncated") and content.get("comment") != "broken off"
    body.trailers = _read_headers(message, "_trailers") or None
    return body


def _read_content(content: Mapping[str, object], folder: Path) -> RecordedBody:
    encoded = bool(content.get("_encoded"))
    if "_file" in content:
        file = folder / str(content["_file"])
        return RecordedBody(None, file, size=file.stat().st_size, encoded=encoded)
    text = str(content.get("text") or "")
    data = base64.b64decode(text) if content.get("encoding") == "base64" else text.encode()
    return RecordedBody(data, size=len(data), encoded=encoded)


def _read_message(message: Mapping[str, object]) -> RecordedMessage:
    data = str(message["data"])
    binary = int(cast("int", message.get("opcode", 1))) == 2
    return RecordedMessage(
        message.get("type") == "send",
        float(cast("float", message.get("time", 0.0))),
        base64.b64decode(data) if binary else data,
    )
