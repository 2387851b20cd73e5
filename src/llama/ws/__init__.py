"""WebSockets: servers, clients, and inspection of proxied ones (RFC 6455, RFC 7692)."""

from llama.ws._client import connect
from llama.ws._conversation import Conversation, Hook, Message, Watcher
from llama.ws._inspect import inspect
from llama.ws._server import server
from llama.ws._websocket import WebSocket

__all__ = ["Conversation", "Hook", "Message", "Watcher", "WebSocket", "connect", "inspect", "server"]
