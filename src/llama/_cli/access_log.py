"""One line for each connection that is not HTTP, in the formats of the access log."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from llama import Bridge, ConnectionHandler, Layer, PeerAddress, Relay, Stream, User, layer, tcp, udp

log = logging.getLogger("llama.access")


@dataclass(frozen=True, slots=True)
class Line:
    """What is known when a connection begins."""

    format: str
    what: str
    moment: float
    began: float

    @classmethod
    def start(cls, format: str, what: str) -> Line:
        return cls(format, what, time.time(), time.perf_counter())

    def write(
        self, stream: Stream, target: str, received: int, sent: int, error: BaseException | None
    ) -> None:
        """It has ended: `received` from the client, `sent` to it."""
        peer, user = stream.extensions.get(PeerAddress), stream.extensions.get(User)
        fields: dict[str, object] = {
            "client.address": peer.host if peer is not None else "-",
            "user.name": str(user) if user is not None else "-",
            "network.protocol.name": self.what.lower(),
            "server.address": target,
            "client.bytes": received,
            "server.bytes": sent,
            "duration": time.perf_counter() - self.began,
            "error.type": type(error).__name__ if error is not None else "",
        }
        log.info("%s", self._text(fields), extra=fields)

    def _text(self, fields: dict[str, object]) -> str:
        moment = datetime.fromtimestamp(self.moment, UTC)
        if self.format == "json":
            return json.dumps({"time": moment.isoformat(), **fields})
        client, user = fields["client.address"], _safe(str(fields["user.name"]))
        asked = _safe(f"{self.what} {fields['server.address']}".strip())
        size = fields["server.bytes"] or "-"
        line = f'{client} - {user} [{moment:%d/%b/%Y:%H:%M:%S %z}] "{asked}" - {size}'
        if self.format == "combined":
            how = f"{fields['duration']:.3f} s {fields['error.type']}".strip()
            line += f' "{fields["client.bytes"]} bytes up" "{how}"'
        return line


def _safe(text: str) -> str:
    return "".join(
        each if each.isprintable() and each not in '"\\' else f"\\x{ord(each):02x}" for each in text
    )


def log_relays(format: str, what: str) -> Layer[Bridge, None, Bridge, None]:
    """A line for each bridge, with its target."""

    @layer
    async def relayed(bridge: Bridge, inner: Relay) -> None:
        line = Line.start(format, what)
        failure: BaseException | None = None
        try:
            await inner(bridge)
        except BaseException as error:
            failure = error
            raise
        finally:
            moved = bridge.extensions.get(tcp.RelayStats) or tcp.RelayStats(0, 0)
            line.write(bridge.client, str(bridge.target), *moved, failure)

    return relayed


def log_connections(format: str, what: str) -> Callable[[ConnectionHandler], ConnectionHandler]:
    """A line for each connection."""

    @layer
    async def served(stream: Stream, inner: ConnectionHandler) -> None:
        line = Line.start(format, what)
        traffic = tcp.TrafficCounter()
        failure: BaseException | None = None
        try:
            await tcp.count(traffic)(inner)(stream)
        except BaseException as error:
            failure = error
            raise
        finally:
            line.write(stream, "", traffic.bytes_received, traffic.bytes_sent, failure)

    return served


def log_associations(format: str, what: str) -> Callable[[ConnectionHandler], ConnectionHandler]:
    """A line for each UDP association of a SOCKS server."""

    @layer
    async def associated(stream: Stream, inner: ConnectionHandler) -> None:
        line = Line.start(format, what)
        failure: BaseException | None = None
        try:
            await inner(stream)
        except BaseException as error:
            failure = error
            raise
        finally:
            if (moved := stream.extensions.get(udp.Transferred)) is not None:
                line.write(stream, "", moved.sent, moved.received, failure)

    return associated
