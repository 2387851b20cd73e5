"""How a command ends that cannot go on."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import NoReturn

import click

from llama import ConfigError

EXIT_FAILURE = 1
EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h


@contextmanager
def exit_on_errors() -> Generator[None]:
    """What is wrong with settings and with the system ends the command, with a line that says what."""
    try:
        yield
    except ConfigError as error:
        fail(EXIT_CONFIG, str(error))
    except OSError as error:
        text = error.strerror or str(error)
        fail(EXIT_FAILURE, f"--listen: {text}" if text.startswith("cannot listen") else text)


def fail(code: int, message: str) -> NoReturn:
    """End with this exit code."""
    for line in message.splitlines():
        click.echo(f"llama: {line}", err=True)
    sys.exit(code)
