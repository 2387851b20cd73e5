"""ASGI applications as exchanges."""

from llama._asgi._exchange import asgi

__all__ = ["asgi"]
