"""Where log lines go."""

from __future__ import annotations

import logging
import sys


def set_up(*, instead_of: bool = False) -> None:
    """Send warnings and what the server says to standard error, the access log to standard output.

    `instead_of` a command that is the user's business the access log is on standard error too, and warnings are all
    else.
    """
    level = "WARNING" if instead_of else "INFO"
    logging.basicConfig(
        stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    access = logging.getLogger("llama.access")
    access.setLevel("INFO")
    handler = logging.StreamHandler(sys.stderr if instead_of else sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    access.handlers[:] = [handler]
    access.propagate = False
