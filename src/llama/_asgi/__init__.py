"""ASGI applications as request handlers, and request handlers as ASGI applications."""

from llama._asgi._exchange import asgi
from llama._asgi._to_asgi import to_asgi

__all__ = ["asgi", "to_asgi"]
