"""A TLS reverse proxy: the command `pango`, and the same as a library."""

from pango._library import run, serve

__all__ = ["run", "serve"]
