"""Loggers: `llama.server`, `llama.tls`, `llama.access` and others, silent until the program configures logging."""

from __future__ import annotations

import logging

logging.getLogger("llama").addHandler(logging.NullHandler())


def logger(name: str) -> logging.Logger:
    """Return the logger `llama.NAME`."""
    return logging.getLogger(f"llama.{name}")
