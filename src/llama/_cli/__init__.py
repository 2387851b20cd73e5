"""The command `llama`: ready-made proxies."""

from llama._cli._commands import main

__all__ = ["main"]
