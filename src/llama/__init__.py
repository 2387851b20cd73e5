"""The proxy framework in which everything is a service."""

from typing import TYPE_CHECKING

from llama import tcp, udp, unix
from llama._errors import (
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
from llama._extensions import Extensions
from llama._later import later
from llama._meter import Meter
from llama._packets import Packet, PacketConnector, Packets
from llama._run import run
from llama._serve import Serving, serve
from llama._server import Local, Peer, Server, User
from llama._service import Layer, Middleware, Service
from llama._shutdown import Shutdown
from llama._stack import describe, layer, stack
from llama._stream import Buffer, Handler, ReadyStream, Stream
from llama._target import Bridge, Connector, Relay, Target
from llama.layers import Predicate, close, limit, rate_limit, retry, route, timeout, trace
from llama.tcp._loop import new_event_loop

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
    from llama._via import via
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
            "via": "llama._via",
            "ws": "llama.ws",
        },
    )
