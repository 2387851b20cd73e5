"""TCP: listeners, streams, connectors, forwarding, relays."""

from llama.tcp._addresses import local_address
from llama.tcp._connect import connect
from llama.tcp._count import Traffic, count
from llama.tcp._first_bytes_wire import Matcher
from llama.tcp._forward import forward
from llama.tcp._idle import idle_timeout
from llama.tcp._lifetime import lifetime
from llama.tcp._limit import limit
from llama.tcp._networks import Network, allow, deny
from llama.tcp._per_peer import per_peer_limit
from llama.tcp._proxy_protocol import proxy_protocol
from llama.tcp._proxy_tlv_wire import ProxySSL, Tlv, TlvType
from llama.tcp._proxy_wire import ProxyHeader
from llama.tcp._relay import Transferred, relay
from llama.tcp._route import route
from llama.tcp._send_proxy import send_proxy
from llama.tcp._server import server
from llama.tcp._targets import public_only
from llama.tcp._throttle import throttle
from llama.tcp._transparent import transparent

__all__ = [
    "Matcher",
    "Network",
    "ProxyHeader",
    "ProxySSL",
    "Tlv",
    "TlvType",
    "Traffic",
    "Transferred",
    "allow",
    "connect",
    "count",
    "deny",
    "forward",
    "idle_timeout",
    "lifetime",
    "limit",
    "local_address",
    "per_peer_limit",
    "proxy_protocol",
    "public_only",
    "relay",
    "route",
    "send_proxy",
    "server",
    "throttle",
    "transparent",
]
