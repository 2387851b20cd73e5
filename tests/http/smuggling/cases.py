"""A proxy in front of a backend that records what it gets, and reads it more strictly than any real one."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from llama import ConnectionHandler, Stream
from llama.http import RequestHandler, client, proxy, reverse_proxy, server
from tests.http.serving import Client, client_of, plain
from tests.http.upstreams import Upstream, tcp_pair

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
RESET = b"(reset)"
TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
HEAD = re.compile(
    rb"(?P<method>%b) (?P<target>[!-~\x80-\xff]+) HTTP/1\.1\r\n(?P<fields>(?:%b: [\t -~\x80-\xff]*\r\n)*)\r\n"
    % (TOKEN, TOKEN)
)
SIZE = re.compile(rb"(0|[1-9a-f][0-9a-f]*)\r\n")
FRAMING = {b"content-length", b"transfer-encoding", b"content_length", b"transfer_encoding", b"upgrade"}


class Ambiguous(Exception):
    """Some backend might read this otherwise."""


class Seen(NamedTuple):
    """One request, as the backend saw it."""

    method: str
    target: str
    host: str
    body: bytes
    fields: list[tuple[bytes, bytes]]

    def __str__(self) -> str:
        return f"{self.method} {self.target}" + (f" {self.body.decode('latin-1')}" if self.body else "")


def take_request(raw: bytes) -> tuple[Seen, bytes] | None:
    """The first request and what follows it; None while it is not whole; Ambiguous where it is not plain."""
    if (end := raw.find(b"\r\n\r\n")) < 0:
        if raw.count(b"\n") != raw.count(b"\r\n"):
            raise Ambiguous(raw)
        return None
    head = HEAD.fullmatch(raw, 0, end + 4)
    if head is None:
        raise Ambiguous(raw)
    pairs = [line.split(b": ", 1) for line in head["fields"].split(b"\r\n")[:-1]]
    fields = [(name.lower(), value) for name, value in pairs]
    names = [name for name, _ in fields]
    if names.count(b"host") != 1 or len([name for name in names if name in FRAMING - {b"upgrade"}]) > 1:
        raise Ambiguous(raw)
    found = _body(dict(fields), raw[end + 4 :])
    if found is None:
        return None
    body, rest = found
    host = dict(fields)[b"host"].decode("latin-1")
    return Seen(head["method"].decode(), head["target"].decode("latin-1"), host, body, fields), rest


def _body(fields: dict[bytes, bytes], raw: bytes) -> tuple[bytes, bytes] | None:
    if b"transfer-encoding" in fields:
        if fields[b"transfer-encoding"] != b"chunked":
            raise Ambiguous(fields)
        return _chunked(raw)
    length = fields.get(b"content-length", b"0")
    if re.fullmatch(rb"0|[1-9][0-9]*", length) is None or FRAMING & fields.keys() - {
        b"content-length",
        b"upgrade",
    }:
        raise Ambiguous(fields)
    return None if len(raw) < int(length) else (raw[: int(length)], raw[int(length) :])


def _chunked(raw: bytes) -> tuple[bytes, bytes] | None:
    body, at = b"", 0
    while True:
        line = SIZE.match(raw, at)
        if line is None:
            if raw.find(b"\n", at) >= 0:
                raise Ambiguous(raw)
            return None
        size, at = int(line[1], 16), line.end()
        if not size:
            break
        if len(raw) < at + size + 2:
            return None
        if raw[at + size : at + size + 2] != b"\r\n":
            raise Ambiguous(raw)
        body, at = body + raw[at : at + size], at + size + 2
    while not raw.startswith(b"\r\n", at):
        end = raw.find(b"\r\n", at)
        if end < 0:
            return None
        if re.fullmatch(rb"x[a-z-]*: [ -~]*", raw[at:end], re.IGNORECASE) is None:
            raise Ambiguous(raw)
        at = end + 2
    return body, raw[at + 2 :]


Answer = Callable[[Seen], bytes]


def ok(seen: Seen) -> bytes:
    """Tells the client which request this is the answer to."""
    text = f"<{seen.target}>".encode("latin-1")
    body = b"" if seen.method == "HEAD" else text
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), body)


@dataclass
class Backend:
    """Answers each request, and keeps what it saw of each connection."""

    answer: Answer = ok
    requests: list[Seen] = field(default_factory=list[Seen])
    rests: list[bytes] = field(default_factory=list[bytes])
    """What each connection ended with that was no whole request."""
    errors: list[Exception] = field(default_factory=list[Exception])
    wires: list[bytes] = field(default_factory=list[bytes])
    """All that came on each connection."""

    async def __call__(self, stream: Stream) -> None:
        raw = wire = b""
        try:
            while data := await stream.read():
                raw += data
                wire += data
                while (found := take_request(raw)) is not None:
                    seen, raw = found
                    self.requests.append(seen)
                    await stream.write(self.answer(seen))
        except Ambiguous as error:
            self.errors.append(error)
        finally:
            self.rests.append(raw)
            self.wires.append(wire)

    @property
    def seen(self) -> list[str]:
        """The requests in short."""
        if self.errors:
            raise AssertionError(f"the backend saw {self.errors[0]}")
        return [str(each) for each in self.requests]


def reverse(upstream: Upstream, patience: float | None = None) -> RequestHandler:
    """The reverse proxy."""
    asking = client(upstream, response_header_timeout=patience, body_timeout=patience)
    return reverse_proxy("http://backend", client=asking)


def forward(upstream: Upstream, patience: float | None = None) -> RequestHandler:
    """The forward proxy."""
    asking = client(upstream, response_header_timeout=patience, body_timeout=patience)
    return proxy(client=asking, private=True)


def to_forward(raw: bytes) -> bytes:
    """The same, said to a forward proxy."""
    return re.sub(rb" (?!/hidden)(/[^ ]*) (?=HTTP/1)", rb" http://a\1 ", raw)


async def through(
    said: bytes,
    backend: ConnectionHandler,
    make: Callable[[Upstream], RequestHandler] = reverse,
    *,
    piecewise: bool = False,
) -> bytes:
    """Say that to a proxy in front of a backend; what it answers until it closes."""
    if make is forward:
        said = to_forward(said)
    upstream = Upstream(backend, tcp_pair)
    exchange = make(upstream)
    async with client_of(server()(exchange)) as browser:
        if piecewise:
            for index in range(len(said)):
                await _say(browser, said[index : index + 1])
        else:
            await _say(browser, said)
        return await heard_of(browser)


async def heard_of(browser: Client) -> bytes:
    """Everything until the end, without Date fields; RESET is at its end if that was a reset."""
    heard = b""
    try:
        while data := await browser.stream.read():
            heard += data
    except OSError:
        heard += RESET
    return plain(heard)


async def _say(browser: Client, data: bytes) -> None:
    try:
        await browser.say(data)
        await asyncio.sleep(0)
    except OSError:
        pass


def statuses(heard: bytes) -> list[int]:
    """Of the responses that came, in order."""
    return [int(each) for each in re.findall(rb"HTTP/1\.1 (\d\d\d) ", heard)]
