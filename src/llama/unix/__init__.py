"""Unix-domain sockets."""

from llama.unix._connect import connect

__all__ = ["connect"]
