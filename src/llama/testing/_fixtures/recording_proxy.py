"""The recording proxy of a test: the fixture `llama_proxy`."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

from llama._core.errors import ConfigError
from llama._core.service import Middleware
from llama._core.stack import stack
from llama._core.target import Connector
from llama._runtime.serve import Serving, serve
from llama.http import Request, Response
from llama.http import server as http_server
from llama.mitm import Recorded, proxy, record
from llama.mitm._har.document import Json, to_entry
from llama.mitm._har.file import document
from llama.mitm._pages import error_page
from llama.testing._fixtures.background_server import Background
from llama.testing._fixtures.drain_requests import drain_before, passes_on
from llama.testing._fixtures.proxy_env import environment, variables
from llama.testing._fixtures.trust import Given, trusting
from llama.tls import CertificateAuthority

Match: TypeAlias = str | Callable[[Recorded], bool]
GRACE = 0.5  # drain timeout in seconds at the end of the test


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA of a test session, and its certificate file."""

    ca: CertificateAuthority
    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Authority:
        """Create a CA in memory, with only its certificate in a file."""
        made = cls(CertificateAuthority.create(name="llama tests", days=30), folder)
        made.ca.write_pem(made.file)
        return made

    @property
    def file(self) -> Path:
        """The certificate for clients to trust."""
        return self.folder / "ca.pem"


@dataclass(slots=True)
class ProxyOptions:
    """The options of the marker `llama_proxy`."""

    layers: Sequence[Middleware[Request, Response]] = ()
    upstream_ca: Given = None
    record_bodies: int | bool = 1 << 20
    connect: Connector | None = None
    inmost: Sequence[Middleware[Request, Response]] = field(default=(), init=False)

    @property
    def bytes_of_bodies(self) -> int:
        """How many bytes of each body to keep."""
        if self.record_bodies is True:
            return 1 << 20
        if self.record_bodies < 0:
            raise ConfigError(f"record_bodies={self.record_bodies}: expected a count of bytes, or False")
        return int(self.record_bodies)


class RecordingProxy:
    """The value of the fixture `llama_proxy`: an intercepting proxy that records the exchanges of a test.

    It listens on 127.0.0.1 and runs in a separate thread and loop, so that tests and their clients may block.
    Meanwhile environment variables make clients use and trust it: `HTTP_PROXY`, `HTTPS_PROXY`,
    `ALL_PROXY` and an empty `NO_PROXY`, in lower case too, `SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE`,
    `CURL_CA_BUNDLE`, `NODE_EXTRA_CA_CERTS`, `GIT_SSL_CAINFO` and some more. Pass `ssl_context` to clients that create
    their TLS context earlier, such as aiohttp at import. Configure `ca_file` and `url` explicitly for clients that
    ignore these variables, such as wget for the CA or Node before 24 for the proxy.

    An exchange is recorded before its last byte is sent to the client: after reading a response, a test finds it here.
    """

    __test__ = False  # not a test class for pytest

    def __init__(self, authority: Authority, options: ProxyOptions) -> None:
        self._authority = authority
        self._options = options
        self._bytes = options.bytes_of_bodies
        self._tls = trusting(options.upstream_ca, authority.folder)
        self._exchanges: list[Recorded] = []
        self._changed = threading.Condition()
        self._watchers: list[Callable[[], object]] = []
        self._background = Background(self._serve, "llama_proxy")
        self._address = ""

    def __repr__(self) -> str:
        return f"<recording proxy {self.url}, {len(self._exchanges)} exchanges>"

    @property
    def url(self) -> str:
        """The URL of the proxy: `http://127.0.0.1:PORT`."""
        return f"http://{self._address}"

    @property
    def ca_file(self) -> Path:
        """The PEM file with the CA certificate for clients to trust."""
        return self._authority.file

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """A new TLS context for clients that trusts only this proxy."""
        # create_default_context would write keys to the file of SSLKEYLOGFILE.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.ca_file)
        return context

    @property
    def environment(self) -> dict[str, str]:
        """The variables to set, for programs started with a different environment."""
        return variables(self.url, self.ca_file)

    # recorded exchanges

    @property
    def exchanges(self) -> list[Recorded]:
        """The exchanges so far, in the order in which they ended."""
        with self._changed:
            return self._exchanges.copy()

    def clear(self) -> None:
        """Remove the exchanges recorded so far."""
        with self._changed:
            self._exchanges.clear()

    def wait(self, match: Match = "", *, timeout: float = 10.0) -> Recorded:
        """Wait for the first finished exchange that matches, such as one made in the background, and return it.

        `match` is a part of the URL, or a function of the exchange. Raises TimeoutError after `timeout` seconds.
        It blocks the thread: use `async_wait` in coroutines.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._find(match) is not None, timeout):
                raise self._nothing(match, timeout)
            found = self._find(match)
        assert found is not None
        return found

    async def async_wait(self, match: Match = "", *, timeout: float = 10.0) -> Recorded:
        """The same as `wait`, for coroutines."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        wake = partial(_wake, loop, changed)
        with self._changed:
            self._watchers.append(wake)
        try:
            async with asyncio.timeout(timeout):
                while (found := self._found(match)) is None:
                    await changed.wait()
                    changed.clear()
            return found
        except TimeoutError:
            raise self._nothing(match, timeout) from None
        finally:
            with self._changed:
                self._watchers.remove(wake)

    def _found(self, match: Match) -> Recorded | None:
        with self._changed:
            return self._find(match)

    def _find(self, match: Match) -> Recorded | None:
        if isinstance(match, str):
            return next((each for each in self._exchanges if match in each.url), None)
        return next((each for each in self._exchanges if match(each)), None)

    def _nothing(self, match: Match, timeout: float) -> TimeoutError:
        seen = ", ".join(f"{each.method} {each.url}" for each in self._exchanges) or "none"
        return TimeoutError(f"no exchange matches {match!r} after {timeout:g} s; there were: {seen}")

    def har(self) -> dict[str, Json]:
        """Return the exchanges so far as a HAR 1.2 document for `json.dumps`."""
        return document([to_entry(each, Path()) for each in self.exchanges])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write `har` to a file, replacing an existing one; return its path."""
        text = json.dumps(self.har(), indent=1, ensure_ascii=False)
        Path(path).write_text(f"{text}\n", encoding="utf-8")
        return Path(path)

    # called in the proxy's thread

    def _serve(self) -> AbstractAsyncContextManager[Serving]:
        options = self._options
        kept = record(self._keep, memory_limit=self._bytes, max_body=self._bytes)
        exchange = proxy(
            self._authority.ca,
            kept,
            drain_before,
            *options.layers,
            *options.inmost,
            passes_on,
            connect=options.connect,
            connect_upstream_first=False,
            tls=self._tls,
            via=None,
        )
        server = stack(http_server(error_handler=error_page), exchange)
        return serve(server, listen="127.0.0.1:0", grace=GRACE)

    def _keep(self, recorded: Recorded) -> None:
        with self._changed:
            self._exchanges.append(recorded)
            self._changed.notify_all()
            for wake in self._watchers:
                wake()

    @contextmanager
    def running(self) -> Generator[None]:
        """Serve, and set the environment, while the block runs."""
        self._address = self._background.start().address
        try:
            with environment(self.environment):
                yield
        finally:
            self._background.stop()


def _wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    try:
        loop.call_soon_threadsafe(event.set)
    except RuntimeError:  # the loop was closed in the meantime
        pass
