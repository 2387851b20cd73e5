"""Request handlers as ASGI applications."""
