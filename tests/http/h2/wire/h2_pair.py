"""Both ends of an HTTP/2 connection, and what happens on them, written down."""

from __future__ import annotations

from collections.abc import Iterable

from llama.http._h2.wire import frames
from llama.http._h2.wire.fields import RequestHead, ResponseHead
from llama.http._h2.wire.frames import H2Error, code_name, frame, unpack_header
from llama.http._h2.wire.hpack_decode import Decoder
from llama.http._h2.wire.hpack_encode import Encoder
from llama.http._h2.wire.protocol import H2Protocol
from llama.http._h2.wire.stream import Stream
from llama.http._limits import DEFAULT_H2_LIMITS, H2Limits
from llama.http._messages.headers import Headers

GET = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
POST = [(":method", "POST"), *GET[1:]]
OK = [(":status", "200")]


class Told:
    """One stream's events, as lines in the list of its connection."""

    def __init__(self, side: Side, id: int) -> None:
        self.side = side
        self.id = id

    def say(self, line: str, ended: bool) -> None:
        self.side.lines.append(f"{self.id} {line}{' end' if ended else ''}")

    def response(self, head: ResponseHead, ended: bool) -> None:
        self.say(f"response {head.status} {fields(head.headers)}".rstrip(), ended)

    def interim(self, head: ResponseHead) -> None:
        self.say(f"interim {head.status} {fields(head.headers)}".rstrip(), False)

    def data(self, data: bytes, ended: bool) -> None:
        self.side.bodies[self.id] = self.side.bodies.get(self.id, b"") + data
        self.say(f"data {len(data)}" if len(data) > 20 else f"data {data.decode('latin-1')}".rstrip(), ended)

    def trailers(self, headers: Headers) -> None:
        self.say(f"trailers {fields(headers)}", False)

    def reset(self, code: int, by_peer: bool) -> None:
        self.say(f"reset {code_name(code)}{' by peer' if by_peer else ''}", False)

    def window(self) -> None:
        self.say("window", False)


class Side:
    """One engine, what it was told, and the streams that it knows."""

    def __init__(self, limits: H2Limits = DEFAULT_H2_LIMITS, *, client: bool = False) -> None:
        self.lines: list[str] = []
        self.bodies: dict[int, bytes] = {}
        self.streams: dict[int, Stream] = {}
        self.now = 0.0
        self.engine = H2Protocol(self, limits, client=client, clock=lambda: self.now)

    def request(self, stream: Stream, head: RequestHead, ended: bool) -> None:
        told = stream.events = Told(self, stream.id)
        self.streams[stream.id] = stream
        where = f"{head.scheme}://{head.headers['host']}{head.path}" if head.scheme else head.headers["host"]
        more = fields(head.headers)[len("host=") + len(head.headers["host"]) :]
        protocol = f" :{head.protocol}" if head.protocol else ""
        told.say(f"{head.method} {where}{protocol}{more}", ended)

    def refused(self, stream: Stream, error: Exception, ended: bool) -> None:
        self.streams[stream.id] = stream
        self.lines.append(f"{stream.id} refused {getattr(error, 'status', 0)}")

    def settings_changed(self) -> None:
        self.lines.append("settings")

    def window(self) -> None:
        self.lines.append("window")

    def goaway(self, last: int, code: int, text: bytes) -> None:
        self.lines.append(f"goaway {last} {code_name(code)}")

    def pong(self, payload: bytes) -> None:
        self.lines.append(f"pong {payload!r}")

    def open(self, fields: list[tuple[str, str]], *, end: bool = True) -> Stream:
        told = Told(self, 0)
        stream = self.engine.open(told, fields, end=end, is_bodiless=fields[0][1] == "HEAD")
        told.id = stream.id
        self.streams[stream.id] = stream
        return stream

    def heard(self) -> list[str]:
        """The lines since the last call."""
        lines, self.lines = self.lines, []
        return lines


def fields(headers: Headers) -> str:
    return " ".join(f"{name}={value}" for name, value in headers)


def exchange(client: Side, server: Side, piece: int = 0) -> None:
    """Carry bytes both ways until there are none; `piece` of them at a time."""
    while True:
        there, back = client.engine.take(), server.engine.take()
        if not there and not back:
            return
        for data, side in ((there, server), (back, client)):
            for part in pieces(data, piece or len(data) or 1):
                side.engine.receive(part)


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def pair(
    client_limits: H2Limits = DEFAULT_H2_LIMITS, server_limits: H2Limits = DEFAULT_H2_LIMITS
) -> tuple[Side, Side]:
    """A client and a server that have greeted each other."""
    client, server = Side(client_limits, client=True), Side(server_limits)
    exchange(client, server)
    client.heard()
    server.heard()
    return client, server


NAMES = dict(enumerate(frames.NAMES))
SETTINGS_FRAME = frame(frames.SETTINGS, 0, 0)


class Peer:
    """Writes frames by hand to one engine, and reads what it answers as lines."""

    def __init__(self, limits: H2Limits = DEFAULT_H2_LIMITS, *, client: bool = False) -> None:
        self.side = Side(limits, client=client)
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.rest = b""
        self.side.engine.take()
        self.send(SETTINGS_FRAME if client else frames.PREFACE + SETTINGS_FRAME)
        self.read()
        self.side.heard()

    def send(self, *data: bytes) -> None:
        self.side.engine.receive(b"".join(data))

    def head(
        self,
        id: int,
        fields: Iterable[tuple[str, str]] = GET,
        *,
        end: bool = True,
        flags: int = frames.END_HEADERS,
    ) -> bytes:
        """HEADERS, its names and values as they stand."""
        return frame(frames.HEADERS, flags | end, id, self.encoder.encode(fields))

    def read(self) -> list[str]:
        """What the engine says, a line for each frame."""
        data = self.rest + self.side.engine.take()
        lines: list[str] = []
        at = 0
        while at < len(data):
            high, low, kind, flags, id = unpack_header(data, at)
            end = at + 9 + (high << 8 | low)
            lines.append(self.line(kind, flags, id, data[at + 9 : end]))
            at = end
        return lines

    def line(self, kind: int, flags: int, id: int, payload: bytes) -> str:
        end = " end" if flags & frames.END_STREAM and kind in (frames.DATA, frames.HEADERS) else ""
        if kind == frames.HEADERS:
            return f"{id} HEADERS {' '.join(f'{n}={v}' for n, v in self.decoder.decode(payload))}{end}"
        if kind == frames.RST_STREAM:
            return f"{id} RST_STREAM {code_name(int.from_bytes(payload, 'big'))}"
        if kind == frames.GOAWAY:
            code = code_name(int.from_bytes(payload[4:8], "big"))
            return f"GOAWAY {int.from_bytes(payload[:4], 'big')} {code}"
        if kind == frames.WINDOW_UPDATE:
            return f"{id} WINDOW_UPDATE {int.from_bytes(payload, 'big')}"
        if kind in (frames.SETTINGS, frames.PING):
            return f"{NAMES[kind]}{' ack' if flags & frames.ACK else ''}"
        return f"{id} {NAMES[kind]} {len(payload)}{end}"

    def error(self, *data: bytes) -> str:
        """Send what ends the connection; the code it ends with."""
        try:
            self.send(*data)
        except H2Error as error:
            last = self.read()[-1]
            if not last.startswith("GOAWAY") or not last.endswith(code_name(error.code)):
                raise AssertionError(last) from error
            return code_name(error.code)
        raise AssertionError(f"no error; it said {self.read()} and heard {self.side.heard()}")
