"""HTTP of any version: messages, servers, clients, proxies, and layers for them."""

from llama.http._body import Body
from llama.http._headers import Headers
from llama.http._message import Exchange, Request, Response
from llama.http._server import server
from llama.http.wire._h1_fields import Limits

__all__ = ["Body", "Exchange", "Headers", "Limits", "Request", "Response", "server"]
