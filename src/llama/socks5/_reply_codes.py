"""Maps errors to reply codes and reply codes to errors."""

from __future__ import annotations

import errno
import os
import socket

from llama._core.errors import LlamaError, RefusedError, UnreachableError
from llama.socks5._wire.socks5 import ReplyCode

_CODES = {
    errno.ECONNREFUSED: ReplyCode.REFUSED,
    errno.EHOSTUNREACH: ReplyCode.HOST_UNREACHABLE,
    errno.ENETUNREACH: ReplyCode.NETWORK_UNREACHABLE,
    errno.ENETDOWN: ReplyCode.NETWORK_UNREACHABLE,
    errno.EADDRNOTAVAIL: ReplyCode.NETWORK_UNREACHABLE,
    errno.ETIMEDOUT: ReplyCode.TTL_EXPIRED,
    errno.EACCES: ReplyCode.NOT_ALLOWED,
    errno.EPERM: ReplyCode.NOT_ALLOWED,
    errno.EOPNOTSUPP: ReplyCode.COMMAND_NOT_SUPPORTED,
    errno.EAFNOSUPPORT: ReplyCode.ADDRESS_NOT_SUPPORTED,
}
_ERRNOS = {
    ReplyCode.NETWORK_UNREACHABLE: errno.ENETUNREACH,
    ReplyCode.HOST_UNREACHABLE: errno.EHOSTUNREACH,
    ReplyCode.REFUSED: errno.ECONNREFUSED,
    ReplyCode.TTL_EXPIRED: errno.ETIMEDOUT,
    ReplyCode.COMMAND_NOT_SUPPORTED: errno.EOPNOTSUPP,
    ReplyCode.ADDRESS_NOT_SUPPORTED: errno.EAFNOSUPPORT,
}


def code_of(error: BaseException) -> ReplyCode:
    """Return the reply code of a failure, from an error or its causes."""
    cause: BaseException | None = error
    while cause is not None:
        if (code := _code(cause)) is not None:
            return code
        cause = cause.__cause__
    return ReplyCode.FAILURE


def _code(error: BaseException) -> ReplyCode | None:
    if isinstance(error, RefusedError):
        return ReplyCode.NOT_ALLOWED
    if isinstance(error, socket.gaierror):
        return ReplyCode.HOST_UNREACHABLE
    if isinstance(error, OSError) and error.errno in _CODES:
        return _CODES[error.errno]
    return ReplyCode.TTL_EXPIRED if isinstance(error, TimeoutError) else None


def error_of(code: int, what: str) -> LlamaError:
    """Return the error for a proxy's reply: RefusedError, or UnreachableError whose cause has the errno."""
    try:
        known = ReplyCode(code)
    except ValueError:
        return UnreachableError(f"{what}: reply code {code}")
    if known is ReplyCode.NOT_ALLOWED:
        return RefusedError(f"{what}: {known.describe}")
    error = UnreachableError(f"{what}: {known.describe}")
    if known in _ERRNOS:
        error.__cause__ = OSError(_ERRNOS[known], os.strerror(_ERRNOS[known]))
    return error
