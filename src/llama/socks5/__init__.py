"""SOCKS5: servers, connectors, rules."""

from llama.socks5._auth import Auth
from llama.socks5._connect import connect
from llama.socks5._rules import Rule, User, allow, deny, per_user
from llama.socks5._server import server

__all__ = ["Auth", "Rule", "User", "allow", "connect", "deny", "per_user", "server"]
