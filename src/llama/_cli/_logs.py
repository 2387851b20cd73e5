"""Where log lines go."""

from __future__ import annotations

import logging
import sys


def set_up() -> None:
    """Send warnings and what the server says to standard error, the access log to standard output."""
    logging.basicConfig(
        stream=sys.stderr, level="INFO", format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    access = logging.getLogger("llama.access")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    access.handlers[:] = [handler]
    access.propagate = False
