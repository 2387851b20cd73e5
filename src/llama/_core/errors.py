"""The exceptions: one root, and subclasses that carry an HTTP status."""

from __future__ import annotations

from typing import ClassVar


class LlamaError(Exception):
    """The root of the errors that llama raises itself.

    `status` is the HTTP status that a server answers with, `retry_after` the seconds after which a client
    may try again (None: unspecified). Both can be set on an instance.
    """

    default_status: ClassVar[int] = 500

    def __init__(self, *args: object, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(*args)
        self.status = self.default_status if status is None else status
        self.retry_after = retry_after


class StreamClosedError(LlamaError, ConnectionError):
    """The stream was closed or aborted on this side, or a write on it was cancelled halfway."""


class StreamBusyError(LlamaError, RuntimeError):
    """A second reader or a second writer used a stream at the same time."""


class TruncatedError(LlamaError, EOFError):
    """The peer closed the connection without announcing the end, so the data may be incomplete."""

    default_status = 502


class TooLargeError(LlamaError, ValueError):
    """A message from the peer exceeds a limit."""

    default_status = 413


class RefusedError(LlamaError, PermissionError):
    """A rule forbids the operation."""

    default_status = 403


class OverloadedError(LlamaError):
    """A capacity limit has been reached; a later attempt may succeed."""

    default_status = 503


class UnreachableError(LlamaError, ConnectionError):
    """The connection to the target failed."""

    default_status = 502


class ProtocolError(LlamaError, ValueError):
    """The peer violated its protocol."""

    default_status = 400


class TLSError(LlamaError, ConnectionError):
    """A TLS handshake or session failed."""

    default_status = 502


class ConfigError(LlamaError, ValueError):
    """A setting is invalid: the message names it and the expected value."""
