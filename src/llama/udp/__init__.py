"""UDP: packets to and from one peer or many."""

from llama.udp._connect import bind, connect
from llama.udp._packets import Transferred

__all__ = ["Transferred", "bind", "connect"]
