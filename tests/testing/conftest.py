"""Loads what test runs within a test's process would load first: pytest forgets such modules when they end.

A library whose classes another one holds on to would be loaded twice then, with two of each class.
"""

from contextlib import suppress
from importlib import import_module

for name in (
    "aiohttp",
    "httpcore2",
    "httpx2",
    "websockets.asyncio.client",
    "llama.testing._fixtures.fixtures",
):
    with suppress(ImportError):
        import_module(name)
