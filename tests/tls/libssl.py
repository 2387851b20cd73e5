"""A TLS client straight from OpenSSL's library, for what Python's `ssl` cannot do: key updates, renegotiation.

It is driven over any stream; the library is loaded where the system has one.
"""

import asyncio
import ctypes
import ctypes.util
from functools import cache

from llama import Stream

UPDATE_OWN, UPDATE_BOTH = 0, 1
_WANT_READ, _ZERO_RETURN = 2, 6
_SET_MAX_VERSION, TLS_1_2 = 124, 0x0303
_CHUNK = 65536

_SIGNATURES = {
    "TLS_client_method": (ctypes.c_void_p, []),
    "SSL_CTX_new": (ctypes.c_void_p, [ctypes.c_void_p]),
    "SSL_CTX_free": (None, [ctypes.c_void_p]),
    "SSL_CTX_ctrl": (ctypes.c_long, [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]),
    "SSL_new": (ctypes.c_void_p, [ctypes.c_void_p]),
    "SSL_free": (None, [ctypes.c_void_p]),
    "SSL_set_connect_state": (None, [ctypes.c_void_p]),
    "SSL_set_bio": (None, [ctypes.c_void_p] * 3),
    "SSL_do_handshake": (ctypes.c_int, [ctypes.c_void_p]),
    "SSL_read": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]),
    "SSL_write": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]),
    "SSL_shutdown": (ctypes.c_int, [ctypes.c_void_p]),
    "SSL_key_update": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int]),
    "SSL_renegotiate": (ctypes.c_int, [ctypes.c_void_p]),
    "SSL_get_error": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int]),
    "BIO_s_mem": (ctypes.c_void_p, []),
    "BIO_new": (ctypes.c_void_p, [ctypes.c_void_p]),
    "BIO_ctrl_pending": (ctypes.c_size_t, [ctypes.c_void_p]),
    "BIO_read": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]),
    "BIO_write": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]),
    "ERR_clear_error": (None, []),
}


@cache
def library() -> ctypes.CDLL | None:
    """OpenSSL's libssl with what is used of it declared; None where there is none."""
    name = ctypes.util.find_library("ssl")
    if name is None:
        return None
    try:
        found = ctypes.CDLL(name)
        for function, (result, arguments) in _SIGNATURES.items():
            getattr(found, function).restype = result
            getattr(found, function).argtypes = arguments
    except (OSError, AttributeError):
        return None
    return found


class LibraryClient:
    """A session over a stream; it verifies nothing. Reads and writes may go on at once, in one thread."""

    def __init__(self, stream: Stream, *, version: int = 0) -> None:
        lib = library()
        assert lib is not None
        self._lib, self._stream = lib, stream
        context = lib.SSL_CTX_new(lib.TLS_client_method())
        lib.SSL_CTX_ctrl(context, _SET_MAX_VERSION, version, None)
        self._ssl = lib.SSL_new(context)
        lib.SSL_CTX_free(context)
        self._in, self._out = lib.BIO_new(lib.BIO_s_mem()), lib.BIO_new(lib.BIO_s_mem())
        lib.SSL_set_bio(self._ssl, self._in, self._out)
        lib.SSL_set_connect_state(self._ssl)
        self._buffer = ctypes.create_string_buffer(_CHUNK)
        self._sending = asyncio.Lock()

    def close(self) -> None:
        """Free the session, its BIOs with it."""
        self._lib.SSL_free(self._ssl)

    async def shake(self) -> None:
        while not self._wants(self._lib.SSL_do_handshake(self._ssl)):
            await self._flush()
            await self._feed()
        await self._flush()

    async def read(self) -> bytes:
        """What comes next; b"" at the end."""
        while True:
            self._lib.ERR_clear_error()
            count: int = self._lib.SSL_read(self._ssl, self._buffer, _CHUNK)
            if count > 0:
                return self._buffer.raw[:count]
            if self._lib.SSL_get_error(self._ssl, count) == _ZERO_RETURN:
                return b""
            self._wants(count)
            await self._flush()  # answers to key updates
            await self._feed()

    async def write(self, data: bytes) -> None:
        assert self._wants(self._lib.SSL_write(self._ssl, data, len(data)))
        await self._flush()

    async def update_key(self, kind: int) -> None:
        """Change this side's key, and with UPDATE_BOTH ask the peer to change its own (RFC 8446, 4.6.3)."""
        assert self._lib.SSL_key_update(self._ssl, kind) == 1
        await self.shake()

    async def renegotiate(self) -> None:
        """Ask for a second handshake on a session of TLS 1.2; the answer is seen by reading."""
        assert self._lib.SSL_renegotiate(self._ssl) == 1
        self._wants(self._lib.SSL_do_handshake(self._ssl))
        await self._flush()

    async def bye(self) -> None:
        self._lib.SSL_shutdown(self._ssl)
        await self._flush()

    def _wants(self, result: int) -> bool:
        """Whether a call got through; False when it waits for the peer."""
        if result > 0:
            return True
        error = self._lib.SSL_get_error(self._ssl, result)
        self._lib.ERR_clear_error()
        if error != _WANT_READ:
            raise ConnectionError(f"the library says error {error}")
        return False

    async def _flush(self) -> None:
        async with self._sending:
            while size := self._lib.BIO_ctrl_pending(self._out):
                piece = ctypes.create_string_buffer(size)
                count = self._lib.BIO_read(self._out, piece, size)
                await self._stream.write(piece.raw[:count])

    async def _feed(self) -> None:
        data = await self._stream.read()
        if not data:
            raise EOFError("the peer left without close_notify")
        self._lib.BIO_write(self._in, data, len(data))
