"""UDP: packets to and from one place or many."""

from llama.udp._connect import bind, connect

__all__ = ["bind", "connect"]
