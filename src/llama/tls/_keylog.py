"""The key log: TLS secrets in a file, for Wireshark and other programs that decrypt captured traffic."""

from __future__ import annotations

import logging
import os
import ssl
import weakref

from llama._core.errors import ConfigError

log = logging.getLogger("llama.tls")
CONTEXTS = 64
"""Maximum number of contexts made on demand that write keys: each one holds its own descriptor."""


class KeyLog:
    """A file to which TLS secrets are appended, in the SSLKEYLOGFILE format.

    It is created with mode 0600. Each secret is a single write of a whole line, so contexts, connections and
    processes can share the file. It is closed with the last reference to this object.
    """

    __slots__ = ("__weakref__", "_descriptor", "_path")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigError(f"{self._path}: cannot write the key log: {error.strerror}") from None
        weakref.finalize(self, os.close, self._descriptor)

    def attach(self, context: ssl.SSLContext) -> None:
        """Make a context write the secrets of its sessions. A failure is logged and does not affect the sessions."""
        same_file = f"/dev/fd/{self._descriptor}"  # the path may name another file by now
        try:
            context.keylog_filename = same_file if os.path.exists(same_file) else self._path
        except OSError as error:
            log.warning("%s: cannot write the key log: %s", self._path, error.strerror)

    def write(self, text: str) -> int:
        """Append whole lines. QUIC connections use this object as a file."""
        try:
            os.write(self._descriptor, text.encode())
        except OSError as error:
            log.warning("%s: cannot write the key log: %s", self._path, error.strerror)
        return len(text)

    def flush(self) -> None:
        """Do nothing: `write` does not buffer."""


def open_key_log(path: str | os.PathLike[str] | None) -> KeyLog | None:
    """Open the key log at a path, if one is given. Raises ConfigError if the file cannot be written."""
    return None if path is None else KeyLog(path)
