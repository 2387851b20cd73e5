"""A strict parser for the heads of HTTP/1.1 requests and responses (RFC 9112 sections 2 to 5)."""

import re
from functools import lru_cache
from http import HTTPStatus

from llama._core.errors import ProtocolError
from llama.http._h1.wire.fields import bad_message, parse_fields
from llama.http._h1.wire.framing import (
    drop_framing,
    ends_with_head,
    keeps_alive,
    request_length,
    response_length,
)
from llama.http._limits import DEFAULT_LIMITS, Limits
from llama.http._messages.headers import Headers

_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_HOST = r"(?:\[[0-9A-Fa-f:.]{2,45}\]|(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})*)"
_AUTHORITY = re.compile(_HOST + r"(?::[0-9]{0,5})?")
_HOST_AND_PORT = re.compile(_HOST + r":[0-9]{1,5}")
_ABSOLUTE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?]+)(.*)")
_TARGET = re.compile(r'[!"$-~\x80-\xff]+')
_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"})
_METHODS_WITH_BODY = frozenset({"connection", "content-length", "expect", "transfer-encoding", "upgrade"})
_cached_status_lines = {
    f"HTTP/1.1 {each.value} {each.phrase}": ("1.1", each.value, each.phrase) for each in HTTPStatus
}
_TCHARS = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PRODUCT = re.compile(rf"({_TCHARS})(?:/{_TCHARS})?")
# An upgrade to HTTP/2 or to HTTP over TLS (RFC 2817) would carry requests past all request handlers and rules.
_CARRY_HTTP = frozenset({"h2", "h2c", "h3", "http", "tls"})
_VERSIONS = {"HTTP/1.1": "1.1", "HTTP/1.0": "1.0"}


class RequestHead:
    """The validated head of a request, with its target and the framing of its body."""

    __slots__ = (
        "authority",
        "expects_continue",
        "headers",
        "is_absolute_form",
        "keep_alive",
        "length",
        "method",
        "path",
        "scheme",
        "target",
        "upgrade_protocol",
        "version",
    )  # fmt: skip

    method: str
    target: str
    """The request target as it was sent."""
    version: str
    headers: Headers
    scheme: str
    """The scheme of a target in absolute-form, else empty."""
    authority: str | None
    """The authority of a target in absolute-form or of CONNECT, else None: then Host is the authority."""
    path: str
    is_absolute_form: bool
    length: int
    keep_alive: bool
    expects_continue: bool
    upgrade_protocol: str
    """The protocols of Upgrade in lower case, joined by ", "; empty if the request stays HTTP."""


class ResponseHead:
    """The validated head of a response."""

    __slots__ = ("headers", "keep_alive", "length", "reason", "status", "upgrade_protocol", "version")

    status: int
    reason: str
    version: str
    headers: Headers
    length: int
    keep_alive: bool
    upgrade_protocol: str


def parse_request(raw: bytes, limits: Limits = DEFAULT_LIMITS) -> RequestHead:
    """Parse the head of a request, from its first byte up to and including the CRLF of its last line.

    Raises ProtocolError with the status of the response: 400, 414, 417, 431, 501 or 505.
    """
    text = raw.decode("latin-1")
    end = text.find("\r\n")
    head = RequestHead()
    head.headers = headers = parse_fields(raw, text, end + 2, limits)
    _request_line(head, text[:end], limits)
    keys = headers.names
    _check_host(head, keys)
    if _METHODS_WITH_BODY.isdisjoint(keys):
        head.length = 0
        head.keep_alive = head.version != "1.0"
        head.expects_continue = False
        head.upgrade_protocol = ""
        return head
    head.length = request_length(head.method, head.version, headers)
    head.keep_alive = keeps_alive(head.version, headers)
    head.expects_continue = "expect" in keys and _expects_continue(head)
    head.upgrade_protocol = _requested_upgrade(head) if "upgrade" in keys else ""
    return head


def parse_response(raw: bytes, method: str, limits: Limits = DEFAULT_LIMITS) -> ResponseHead:
    """Parse the head of a response to `method`; raise ProtocolError (502) if it is malformed or ambiguous."""
    text = raw.decode("latin-1")
    end = text.find("\r\n")
    head = ResponseHead()
    line = text[:end]
    head.version, head.status, head.reason = _cached_status_lines.get(line) or _status_line(line, limits)
    try:
        head.headers = headers = parse_fields(raw, text, end + 2, limits)
        if bodiless := ends_with_head(method, head.status):
            head.length = 0
        else:
            head.length = response_length(method, head.status, head.version, headers)
    except ProtocolError as error:
        raise bad_message(f"in a response: {error}", 502) from None
    head.keep_alive = head.length != -2 and keeps_alive(head.version, headers)
    if bodiless and drop_framing(headers):
        head.keep_alive = False
    head.upgrade_protocol = _upgrade(head.version, headers) if "upgrade" in headers.names else ""
    return head


def _status_line(line: str, limits: Limits) -> tuple[str, int, str]:
    match = _STATUS_LINE.fullmatch(line)
    if match is None or len(line) > limits.max_start_line:
        raise bad_message(f"a malformed status line {line[:60]!r}", 502)
    return "1.1" if match[1] == "1" else "1.0", int(match[2]), match[3] or ""


def _request_line(head: RequestHead, line: str, limits: Limits) -> None:
    parts = line.split(" ")
    if len(line) > limits.max_start_line:
        raise bad_message(f"the request line is longer than {limits.max_start_line} bytes", 414)
    if len(parts) != 3:
        raise bad_message(f"a malformed request line {line[:60]!r}")
    head.method, target, version = parts
    if head.method not in _METHODS and _METHOD.fullmatch(head.method) is None:
        raise bad_message(f"method {head.method[:60]!r} is not a token")
    if version not in _VERSIONS:
        raise _version_error(version)
    head.version = _VERSIONS[version]
    if _TARGET.fullmatch(target) is None:
        raise bad_message(f"a malformed request target {target[:60]!r}")
    head.target = target
    head.scheme = ""
    head.authority = None
    head.is_absolute_form = False
    head.path = target
    if target[0] != "/" or head.method == "CONNECT":
        _parse_other_form(head, target)


def _version_error(version: str) -> ProtocolError:
    known = re.fullmatch(r"HTTP/[0-9]\.[0-9]", version) is not None
    return bad_message(f"HTTP version {version[:20]!r} is not supported", 505 if known else 400)


def _parse_other_form(head: RequestHead, target: str) -> None:
    """Parse a target in absolute-form, authority-form or asterisk-form (RFC 9112 section 3.2)."""
    if head.method == "CONNECT":
        if not is_host_and_port(target):
            raise bad_message(f"CONNECT target {target[:60]!r} is not host:port")
        head.authority, head.path = target, ""
        return
    if target == "*" and head.method == "OPTIONS":
        return
    match = _ABSOLUTE.fullmatch(target)
    if match is None or not _may_be_authority(match[2]):
        raise bad_message(f"request target {target[:60]!r} does not fit {head.method}")
    head.is_absolute_form = True
    head.scheme, head.authority, head.path = match[1].lower(), match[2], match[3]


def is_authority(text: str) -> bool:
    """Whether `text` is a host with an optional port and without userinfo."""
    return _AUTHORITY.fullmatch(text) is not None and _port_fits(text)


_is_known_authority = lru_cache(1024)(is_authority)


def _may_be_authority(text: str) -> bool:
    """Whether `text` is an authority; cached for texts up to 255 characters."""
    return _is_known_authority(text) if len(text) <= 255 else is_authority(text)


def is_host_and_port(text: str) -> bool:
    """Whether `text` is a host and a port, as CONNECT requires."""
    if _HOST_AND_PORT.fullmatch(text) is None or text[0] == ":":
        return False
    return 0 < int(text.rpartition(":")[2]) < 65536


def _port_fits(authority: str) -> bool:
    port = authority.rpartition(":")[2] if authority[-1:] != "]" and ":" in authority else ""
    return not port or int(port) < 65536


def _check_host(head: RequestHead, keys: list[str]) -> None:
    count = keys.count("host")
    if count != 1:
        if count:
            raise bad_message(f"{count} Host fields")
        if head.version != "1.0":
            raise bad_message("no Host field")
        return
    host = head.headers["host"]
    if not _may_be_authority(host):
        raise bad_message(f"a malformed Host {host[:60]!r}")


def _expects_continue(head: RequestHead) -> bool:
    if head.version == "1.0":
        return False
    check_expectation(head.headers)
    return head.length != 0


def check_expectation(headers: Headers) -> None:
    """Raise ProtocolError (417) if Expect is not 100-continue (RFC 9110 section 10.1.1)."""
    if headers.tokens("expect") != ["100-continue"]:
        raise bad_message(f"expectation {headers['expect'][:60]!r} cannot be met", 417)


def _requested_upgrade(head: RequestHead) -> str:
    """Return the protocols of Upgrade, normalised so that later code can compare them; "" if it is ignored.

    CONNECT ignores Upgrade. A malformed member, or one that carries HTTP itself, drops all members: a peer with a
    more lenient parser must not select a protocol that was not seen here.
    """
    if head.method == "CONNECT":
        return ""
    protocols = _upgrade(head.version, head.headers)
    for each in protocols.split(", "):
        match = _PRODUCT.fullmatch(each)
        if (
            match is None or match[1].partition("-")[0] in _CARRY_HTTP
        ):  # drafts of HTTP/2 had names like h2c-14
            return ""
    return protocols


def _upgrade(version: str, headers: Headers) -> str:
    if version == "1.0" or "upgrade" not in headers.tokens("connection"):
        return ""
    return ", ".join(headers.tokens("upgrade"))
