"""The proxy framework in which everything is a service."""

from typing import TYPE_CHECKING

from llama import tcp, udp, unix
from llama._core.errors import (
    Busy,
    Closed,
    ConfigError,
    LlamaError,
    Overloaded,
    ProtocolError,
    Refused,
    TLSError,
    TooLarge,
    Truncated,
    Unreachable,
)
from llama._core.extensions import Extensions
from llama._core.meter import Meter
from llama._core.packets import Packet, PacketConnector, Packets
from llama._core.server import Local, Peer, Server, User
from llama._core.service import Layer, Middleware, Service
from llama._core.shutdown import Shutdown
from llama._core.stack import describe, layer, stack
from llama._core.stream import Buffer, Handler, ReadyStream, Stream
from llama._core.target import Bridge, Connector, Relay, Target
from llama._lazy_import import later
from llama._runtime.run import run
from llama._runtime.serve import Serving, serve
from llama.layers import Predicate, close, limit, rate_limit, retry, route, timeout, trace
from llama.tcp._io.event_loop import new_event_loop

__all__ = [
    "Bridge",
    "Buffer",
    "Busy",
    "Closed",
    "ConfigError",
    "Connector",
    "Extensions",
    "Handler",
    "Layer",
    "LlamaError",
    "Local",
    "Meter",
    "Middleware",
    "Overloaded",
    "Packet",
    "PacketConnector",
    "Packets",
    "Peer",
    "Predicate",
    "ProtocolError",
    "ReadyStream",
    "Refused",
    "Relay",
    "Server",
    "Service",
    "Serving",
    "Shutdown",
    "Stream",
    "TLSError",
    "Target",
    "TooLarge",
    "Truncated",
    "Unreachable",
    "User",
    "asgi",
    "close",
    "describe",
    "http",
    "layer",
    "limit",
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
    __getattr__, __dir__ = later(
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
