"""Loggers: `llama.server`, `llama.tls`, `llama.access` and others, silent until a program sets logging up."""

from __future__ import annotations

import logging

logging.getLogger("llama").addHandler(logging.NullHandler())


def logger(name: str) -> logging.Logger:
    """The logger `llama.NAME`."""
    return logging.getLogger(f"llama.{name}")
