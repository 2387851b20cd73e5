"""HTTP of any version: messages, servers, clients, proxies, and layers for them."""

from llama.http._body import Body
from llama.http._headers import Headers
from llama.http._message import Exchange, Request, Response

__all__ = ["Body", "Exchange", "Headers", "Request", "Response"]
