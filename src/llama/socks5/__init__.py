"""SOCKS5: a server, connectors, UDP packets, and access rules."""

from llama._core.server import User
from llama.socks5._associate import associate
from llama.socks5._auth import Auth
from llama.socks5._bind import Binder, Binding, bind
from llama.socks5._connect import connect
from llama.socks5._rules import Rule, allow, deny, per_user
from llama.socks5._server import server

__all__ = [
    "Auth",
    "Binder",
    "Binding",
    "Rule",
    "User",
    "allow",
    "associate",
    "bind",
    "connect",
    "deny",
    "per_user",
    "server",
]
