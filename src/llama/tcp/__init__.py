"""TCP: listeners, streams, connectors, forwarding, relays."""

from llama.tcp._addresses import local_address
from llama.tcp._connect import connect
from llama.tcp._forward import forward
from llama.tcp._listener import server
from llama.tcp._middleware.connection_limit import connection_limit
from llama.tcp._middleware.count import TrafficCounter, count
from llama.tcp._middleware.idle import idle_timeout
from llama.tcp._middleware.lifetime import lifetime
from llama.tcp._middleware.per_peer import per_peer_limit
from llama.tcp._middleware.throttle import throttle
from llama.tcp._policy.address_filter import public_only
from llama.tcp._policy.networks import Network, allow, deny
from llama.tcp._protocol_detection import Matcher
from llama.tcp._proxy_protocol.header import ProxyHeader
from llama.tcp._proxy_protocol.receive import proxy_protocol
from llama.tcp._proxy_protocol.send import send_proxy
from llama.tcp._proxy_protocol.tlv import ProxySSL, Tlv, TlvType
from llama.tcp._relay.relay import RelayStats, relay
from llama.tcp._route import route
from llama.tcp._transparent import transparent

__all__ = [
    "Matcher",
    "Network",
    "ProxyHeader",
    "ProxySSL",
    "RelayStats",
    "Tlv",
    "TlvType",
    "TrafficCounter",
    "allow",
    "connect",
    "connection_limit",
    "count",
    "deny",
    "forward",
    "idle_timeout",
    "lifetime",
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
