"""A TLS reverse proxy: the command `pango`, and the same as a library."""

from pango._api import run, serve

__all__ = ["run", "serve"]
