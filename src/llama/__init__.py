"""The proxy framework in which everything is a service."""

from typing import TYPE_CHECKING

from llama import tcp, udp, unix
from llama._core.errors import (
    ConfigError,
    LlamaError,
    OverloadedError,
    ProtocolError,
    RefusedError,
    StreamBusyError,
    StreamClosedError,
    TLSError,
    TooLargeError,
    TruncatedError,
    UnreachableError,
)
from llama._core.extensions import Extensions
from llama._core.meter import Meter
from llama._core.packets import Packet, PacketConnector, Packets
from llama._core.server import LocalAddress, PeerAddress, Server, User
from llama._core.service import Layer, Middleware, Service
from llama._core.shutdown import Shutdown
from llama._core.stack import describe, layer, stack
from llama._core.stream import Buffer, ConnectionHandler, NonblockingStream, Stream
from llama._core.target import Bridge, Connector, Relay, Target
from llama._lazy_import import lazy_names
from llama._runtime.run import run
from llama._runtime.serve import Serving, serve
from llama.layers import Predicate, close, concurrency_limit, rate_limit, retry, route, timeout, trace
from llama.tcp._io.event_loop import new_event_loop

__all__ = [
    "Bridge",
    "Buffer",
    "ConfigError",
    "ConnectionHandler",
    "Connector",
    "Extensions",
    "Layer",
    "LlamaError",
    "LocalAddress",
    "Meter",
    "Middleware",
    "NonblockingStream",
    "OverloadedError",
    "Packet",
    "PacketConnector",
    "Packets",
    "PeerAddress",
    "Predicate",
    "ProtocolError",
    "RefusedError",
    "Relay",
    "Server",
    "Service",
    "Serving",
    "Shutdown",
    "Stream",
    "StreamBusyError",
    "StreamClosedError",
    "TLSError",
    "Target",
    "TooLargeError",
    "TruncatedError",
    "UnreachableError",
    "User",
    "asgi",
    "close",
    "concurrency_limit",
    "describe",
    "http",
    "layer",
    "mitm",
    "new_event_loop",
    "rate_limit",
    "retry",
    "route",
    "run",
    "serve",
    "socks5",
    "stack",
    "tcp",
    "timeout",
    "tls",
    "to_asgi",
    "trace",
    "udp",
    "unix",
    "via",
    "ws",
]

if TYPE_CHECKING:
    from llama import http, mitm, socks5, tls, ws
    from llama._asgi import asgi, to_asgi
    from llama._proxy_chain import via
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        __all__,
        {
            "asgi": "llama._asgi",
            "http": "llama.http",
            "mitm": "llama.mitm",
            "socks5": "llama.socks5",
            "tls": "llama.tls",
            "to_asgi": "llama._asgi",
            "via": "llama._proxy_chain",
            "ws": "llama.ws",
        },
    )
