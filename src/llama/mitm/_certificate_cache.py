"""Leaf certificates for the server names of clients, issued on first use and cached."""

from __future__ import annotations

import asyncio
import os
import ssl
import tempfile
import time
from collections import OrderedDict
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from hashlib import sha256
from typing import TypeAlias

from cryptography import x509

from llama._core.errors import ConfigError, TLSError
from llama._core.shutdown import Shutdown
from llama.tls import CertificateAuthority, KeyPair
from llama.tls._keylog import CONTEXTS, KeyLog

DAY = 86400.0
_Key: TypeAlias = tuple[str, bytes, tuple[str, ...]]
_Made: TypeAlias = tuple[ssl.SSLContext, float]


class CertificateCache:
    """A cache of server contexts for any name, signed by one CA; the least recently used are evicted."""

    __slots__ = ("_contexts", "_making", "_thread", "authority", "keylog", "limit")

    def __init__(self, authority: CertificateAuthority, limit: int, keylog: KeyLog | None = None) -> None:
        if limit < 1:
            raise ConfigError(f"certificates={limit}: expected at least 1")
        self.authority = authority
        self.limit = limit if keylog is None else min(limit, CONTEXTS)
        self.keylog = keylog
        self._contexts: OrderedDict[_Key, tuple[ssl.SSLContext, float]] = OrderedDict()
        self._making: dict[tuple[_Key, asyncio.AbstractEventLoop], asyncio.Future[_Made]] = {}
        self._thread: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return len(self._contexts)

    async def context(self, name: str, certificate: bytes | None, alpn: tuple[str, ...]) -> ssl.SSLContext:
        """Return the context for a name; it mirrors the upstream's certificate (DER) if that is given.

        Raises TLSError for an invalid server name.
        """
        key = (name, sha256(certificate).digest() if certificate else b"", alpn)
        found = self._contexts.get(key)
        if found is not None and found[1] > time.monotonic():
            self._contexts.move_to_end(key)
            return found[0]
        loop = asyncio.get_running_loop()
        making = self._making.get((key, loop))
        if making is None:
            # Most of the work is in OpenSSL, which releases the GIL, so the loop continues meanwhile.
            making = loop.run_in_executor(self._worker(), self._make, name, certificate, alpn)
            self._making[key, loop] = making
            making.add_done_callback(lambda made: self._made(key, loop, made))
        try:
            return (await asyncio.shield(making))[0]
        except ConfigError as error:
            raise TLSError(f"no certificate can be made for {name[:80]!r}: {error}") from None

    def _worker(self) -> ThreadPoolExecutor:
        """Return the single worker thread: more would compete with the loop for the GIL."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "certificates")
            with suppress(
                RuntimeError
            ):  # run without a Shutdown: the thread ends when this object is collected
                Shutdown.current().on_close(self._close)
        return self._thread

    async def _close(self) -> None:
        """Stop the thread; a new one is started when needed."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown()

    def _make(self, name: str, certificate: bytes | None, alpn: tuple[str, ...]) -> _Made:
        pair, life = self._mint(name, certificate)
        context = server_context(pair, alpn)
        if self.keylog is not None:
            self.keylog.attach(context)
        return context, life

    def _made(self, key: _Key, loop: asyncio.AbstractEventLoop, made: asyncio.Future[_Made]) -> None:
        del self._making[key, loop]
        if made.cancelled() or made.exception() is not None:
            return
        context, life = made.result()
        self._contexts.pop(key, None)
        while len(self._contexts) >= self.limit:
            self._contexts.popitem(last=False)
        self._contexts[key] = context, time.monotonic() + life

    def _mint(self, name: str, certificate: bytes | None) -> tuple[KeyPair, float]:
        """Issue a certificate; return it and the seconds for which it is cached."""
        if certificate is not None:
            try:
                upstream = x509.load_der_x509_certificate(certificate)
                left = (upstream.not_valid_after_utc - datetime.now(UTC)).total_seconds()
                return self.authority.mirror(upstream, name), min(DAY, left / 2 if left > 0 else DAY / 2)
            except ValueError as error:  # an unverified certificate may be malformed
                if isinstance(error, ConfigError):
                    raise
        return self.authority.issue(name, reuse_key=True), DAY


def server_context(pair: KeyPair, alpn: tuple[str, ...]) -> ssl.SSLContext:
    """Make a server context from a certificate in memory."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    with _as_file(pair.cert_pem + pair.key_pem) as path:
        context.load_cert_chain(path)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


@contextmanager
def _as_file(data: bytes) -> Generator[str]:
    """A path, private to this process, to read bytes from: OpenSSL loads certificate chains only from files."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, data)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    descriptor, path = tempfile.mkstemp(prefix="llama-")
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        yield path
    finally:
        os.unlink(path)
