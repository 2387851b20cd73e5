"""Notifies a service manager of the process' state (sd_notify(3), for `Type=notify-reload`)."""

from __future__ import annotations

import logging
import os
import socket
import time

log = logging.getLogger("llama.server")


class Notifier:
    """Sends notifications to the socket that NOTIFY_SOCKET names; does nothing if the variable is unset."""

    def __init__(self) -> None:
        path = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path

    def ready(self) -> None:
        """Report that the start or a reload has finished."""
        self._send("READY=1", f"MAINPID={os.getpid()}")

    def reloading(self) -> None:
        """Report that a reload begins."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reload_skipped(self) -> None:
        """Report the begin and the end of a reload without changes: the manager waits for both."""
        self.reloading()
        self.ready()

    def stopping(self) -> None:
        """Report that the process is stopping."""
        self._send("STOPPING=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.warning("NOTIFY_SOCKET %s: %s", self._address.replace("\0", "@"), error)
