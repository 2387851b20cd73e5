"""ASGI applications as request handlers, and request handlers as ASGI applications."""

from llama._asgi.service import asgi
from llama._asgi.to_asgi.app import to_asgi

__all__ = ["asgi", "to_asgi"]
