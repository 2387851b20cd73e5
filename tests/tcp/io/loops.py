"""Event loops of each kind that streams run on."""

import asyncio
from typing import Any

from llama.tcp._io.event_loop import new_event_loop


class Proactor(asyncio.SelectorEventLoop):
    """As Windows' own loop: it receives, sends, accepts and connects, and reports no readiness."""

    add_reader: Any = asyncio.AbstractEventLoop.add_reader
    add_writer: Any = asyncio.AbstractEventLoop.add_writer


LOOPS = [asyncio.SelectorEventLoop, new_event_loop, Proactor]
