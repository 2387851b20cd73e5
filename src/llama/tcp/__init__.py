"""TCP: listeners, streams, connectors, forwarding, relays."""

from llama.tcp._connect import connect
from llama.tcp._forward import forward
from llama.tcp._relay import Transferred, relay
from llama.tcp._server import server

__all__ = ["Transferred", "connect", "forward", "relay", "server"]
