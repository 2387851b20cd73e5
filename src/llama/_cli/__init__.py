"""The command `llama`: ready-made proxies."""

from llama._cli.commands import main

__all__ = ["main"]
