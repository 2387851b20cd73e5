"""WebSockets: servers, clients, and inspection of proxied ones (RFC 6455, RFC 7692)."""

from llama.ws._client import connect
from llama.ws._inspect import inspect
from llama.ws._observe import CloseObserver, MessageObserver, Observation, ObservedMessage, observe
from llama.ws._relayed_websocket import Hook, LifecycleHook, Message, RelayedWebSocket
from llama.ws._server import server
from llama.ws._websocket import WebSocket

__all__ = [
    "CloseObserver",
    "Hook",
    "LifecycleHook",
    "Message",
    "MessageObserver",
    "Observation",
    "ObservedMessage",
    "RelayedWebSocket",
    "WebSocket",
    "connect",
    "inspect",
    "observe",
    "server",
]
