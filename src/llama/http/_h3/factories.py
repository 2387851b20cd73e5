"""The public HTTP/3 functions. They import the modules that need the `http3` extra only when called."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llama._core.errors import ConfigError
from llama._core.packets import PacketConnector
from llama._core.server import Server
from llama._core.stack import check_accepts
from llama.http._h3.settings import (
    MAX_CONNECTIONS_PER_ORIGIN,
    H3ClientSettings,
    H3Identity,
    H3Settings,
    PathLike,
)
from llama.http._h3_extra import require_qh3
from llama.http._limits import DEFAULT_LIMITS, Limits
from llama.http._messages.error_response import ErrorHandler, named_page, plain_text_error
from llama.http._messages.message import Request, RequestHandler
from llama.http._server_settings import ServerSettings
from llama.tcp._connect import Resolver
from llama.tls._certificates.files import Certificate, ClientAuth, Policy
from llama.tls._keylog import open_key_log
from llama.udp import connect as udp_connect

if TYPE_CHECKING:  # needs the extra
    from llama.http._h3.client.client import H3Client


def h3_server(
    address: str | int | tuple[str, int], handler: RequestHandler, cert: PathLike | Certificate,
    key: PathLike | None = None, *more: Certificate, password: str | Callable[[], str] | None = None,
    client_ca: PathLike | None = None, client_auth: ClientAuth | None = None, handshake_timeout: float = 10.0,
    idle_timeout: float = 30.0, handler_timeout: float | None = None, body_timeout: float | None = None,
    write_timeout: float | None = None, max_connections: int = 10_000, max_requests: int | None = None,
    retry_threshold: int = 128, reset_key: bytes | None = None, early_data: bool = False,
    error_handler: ErrorHandler = plain_text_error, proxy_name: str = "llama", limits: Limits = DEFAULT_LIMITS,
    keylog: PathLike | None = None,
) -> Server:  # fmt: skip
    """Serve HTTP/3 (RFC 9114) at a UDP address, next to `tcp.server` in one `run`.

    `cert` and `key`, further certificates, `client_ca`, `client_auth`, `keylog` and the `TLSInfo` in the extensions are
    as in `tls.server`; if a client certificate is requested, sessions are not resumed. Seconds: `handshake_timeout`
    and `idle_timeout` end a connection; the other timeouts are those of `http.server`. At `max_connections` new ones
    are ignored. While `retry_threshold` handshakes are in progress, new clients must validate their address first
    (Retry). Clients of connections lost in a crash get a stateless reset; with a `reset_key`, a secret of at least
    16 bytes, also after a restart. `early_data` accepts requests of returning clients before the handshake (0-RTT),
    which an attacker may replay: the handler gets safe methods, with `Early-Data: 1`, others get 425 (RFC 8470). The
    last 4,096 tickets, each valid once and in its worker, are kept until a reload. Advertise the server with
    `http.alt_svc()` over TCP. A connection buffers 1 MiB of unread data. Raises ConfigError for unusable files or a
    missing `http3` extra.

        run(tcp.server(":443", site), http.h3_server(":443", application, "cert.pem", "key.pem"))
    """
    require_qh3("http.h3_server()")
    from llama.http._h3.server.listener import build_server  # the extra may be missing

    check_accepts(handler, Request, "http.h3_server()")
    http = ServerSettings(
        handler_timeout=handler_timeout, body_timeout=body_timeout, write_timeout=write_timeout, limits=limits,
        max_requests=max_requests, error_handler=named_page(error_handler, proxy_name, "http.h3_server"),
    )  # fmt: skip
    times, secrets = (handshake_timeout, idle_timeout), open_key_log(keylog)
    settings = H3Settings(http, *times, max_connections, retry_threshold, reset_key, early_data, secrets)
    policy = Policy(client_ca=client_ca, client_auth=client_auth)
    return build_server(address, handler, (_certificate(cert, key, password), *more), settings, policy)


def _certificate(
    cert: PathLike | Certificate, key: PathLike | None, password: str | Callable[[], str] | None
) -> Certificate:
    if not isinstance(cert, Certificate):
        return Certificate(cert, key, password=password)
    if key is not None:
        raise ConfigError("http.h3_server(): a key file goes with a certificate file, not with a Certificate")
    return cert


def h3_client(
    *, connect: PacketConnector | None = None, fallback: RequestHandler | None = None,
    alt_svc_timeout: float | None = None, ca: PathLike | None = None, verify: bool = True,
    server_name: str | None = None, cert: PathLike | None = None, key: PathLike | None = None,
    password: str | Callable[[], str] | None = None, connect_timeout: float | None = 10.0,
    pool_timeout: float | None = None, idle_timeout: float = 30.0, response_header_timeout: float | None = None,
    body_timeout: float | None = None, write_timeout: float | None = None, max_connections: int | None = 256,
    max_per_host: int | None = MAX_CONNECTIONS_PER_ORIGIN, max_waiting: int = 1024, early_data: bool = False,
    limits: Limits = DEFAULT_LIMITS, keylog: PathLike | None = None,
) -> H3Client:  # fmt: skip
    """Send requests over HTTP/3. A connection carries as many concurrent requests as its server allows.

    `connect` opens the packets, by default `udp.connect()`, which tries the addresses of a name in turn. With a
    `fallback`, such as `http.client()`, HTTP/3 is used only for origins that advertise it with Alt-Svc (RFC 7838);
    the fallback sends all other requests, and those to origins that are unreachable over HTTP/3. `alt_svc_timeout`
    is the number of seconds to wait for a connection before the fallback sends the request.

    `ca` is a PEM file or directory with the authorities to trust instead of the system's; `verify=False` accepts any
    certificate. It is verified for the target's host or `server_name`; `cert`, `key`, `keylog` are as in `tls.connect`.
    Seconds: `idle_timeout` ends a connection that carries no request; `connect_timeout`, `pool_timeout`,
    `response_header_timeout`, `body_timeout` and `write_timeout` are those of `http.client`, as are `max_connections`,
    `max_per_host` and `max_waiting`. It resends requests as `http.client` does, and those that the server rejected
    unprocessed. With `early_data` (and no fallback) it sends safe requests to a known server during the handshake
    (0-RTT), where an attacker may replay them. Raises the errors of `http.client`, and ConfigError without the extra.
    """
    require_qh3("http.h3_client()")
    from llama.http._h3.client.client import build_client  # the extra may be missing

    if fallback is not None:
        check_accepts(fallback, Request, "http.h3_client(fallback=)")
    settings = H3ClientSettings(
        alt_svc_timeout, connect_timeout, pool_timeout, response_header_timeout, body_timeout, write_timeout,
        idle_timeout,
        max_connections, max_per_host, max_waiting=max_waiting, limits=limits, early_data=early_data,
    )  # fmt: skip
    own = H3Identity(ca, verify, server_name, cert, key, password, open_key_log(keylog))
    return build_client(connect or udp_connect(), fallback, own, settings)


def build_h3_client(identity: H3Identity, resolver: Resolver | None, settings: H3ClientSettings) -> H3Client:
    """Return the HTTP/3 client of an `http.client`, which enters and exits it."""
    require_qh3("h3://")
    from llama.http._h3.client.client import build_client  # the extra may be missing

    return build_client(udp_connect(resolver=resolver), None, identity, settings)
