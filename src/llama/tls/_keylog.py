"""The key log: TLS secrets in a file, for Wireshark and other programs that decrypt captured traffic."""

from __future__ import annotations

import logging
import os
import ssl
import weakref

from llama._errors import ConfigError

log = logging.getLogger("llama.tls")
CONTEXTS = 64
"""How many contexts that are made on demand may write keys at once: each has a descriptor of its own."""


class KeyLog:
    """A file that TLS secrets are appended to, in the format of SSLKEYLOGFILE.

    It is created with mode 0600. Each secret is one write of a whole line, so that contexts, connections and
    processes can share the file. The file is closed with the last reference.
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
        """Have a context write the secrets of its sessions; a failure is logged, and the sessions go on."""
        same_file = f"/dev/fd/{self._descriptor}"  # the path may name another file by now
        try:
            context.keylog_filename = same_file if os.path.exists(same_file) else self._path
        except OSError as error:
            log.warning("%s: cannot write the key log: %s", self._path, error.strerror)

    def write(self, text: str) -> int:
        """Append whole lines: QUIC connections use this as a file."""
        try:
            os.write(self._descriptor, text.encode())
        except OSError as error:
            log.warning("%s: cannot write the key log: %s", self._path, error.strerror)
        return len(text)

    def flush(self) -> None:
        """Do nothing: `write` keeps nothing back."""


def open_key_log(path: str | os.PathLike[str] | None) -> KeyLog | None:
    """The key log of a setting; ConfigError for a file that cannot be written."""
    return None if path is None else KeyLog(path)
