"""The options that the commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias, TypeVar, cast

import click

from llama._cli import param_types

F = TypeVar("F", bound=Callable[..., object])
Decorator: TypeAlias = Callable[[F], F]
LogFormat: TypeAlias = Literal["common", "combined", "json"]

_LISTEN_HELP = "HOST:PORT, :PORT for every address, PORT for this machine only, unix:PATH or fd:NUMBER. "

CERT = click.option(
    "--cert",
    metavar="FILE",
    multiple=True,
    help="Terminate TLS with this certificate and chain (PEM). Repeatable, for other names or another type of key.",
)
KEY = click.option(
    "--key",
    metavar="FILE",
    multiple=True,
    help="Its private key, if it is not in the same file. One for each --cert.",
)
WORKERS = click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(1),
    help="Worker processes, each replaced when it dies.  [default: this process alone]",
)


def _time(name: str, default: str, help: str) -> Callable[[F], F]:
    return click.option(
        name, metavar="TIME", type=param_types.seconds, default=default, show_default=True, help=help
    )


GRACE = partial(
    _time, "--grace", "off", "Maximum wait for open connections and requests after SIGTERM or SIGINT."
)
HANDSHAKE = partial(
    _time,
    "--handshake-timeout",
    "10s",
    "Timeout for a client's TLS handshake, its SOCKS request or the head of an HTTP request, and for the responses of "
    "the proxies of --via.",
)
CONNECT = partial(
    _time, "--connect-timeout", "10s", "Timeout for connecting to a target, or to the first proxy of --via."
)
IDLE = partial(
    _time,
    "--idle-timeout",
    "10m",
    "Close a connection after this time without traffic, kept-alive connections included.",
)
FIRST_BYTE = partial(_time, "--first-byte-timeout", "1m", "Timeout for the first byte of a new connection.")
RESPONSE_HEADER_TIMEOUT = partial(
    _time, "--response-header-timeout", "off", "Timeout for the response head, once the request is sent."
)
VIA = click.option(
    "--via",
    metavar="URL",
    multiple=True,
    envvar="LLAMA_VIA",
    help="Reach targets through this proxy: socks5://, socks5h:// (it resolves names), http:// or https:// with "
    "[USER:PASSWORD@]HOST[:PORT], or env to follow the proxy environment variables. Repeatable, for a chain.  "
    "[env: LLAMA_VIA, separated by spaces; other users cannot see it]",
)
USER = click.option(
    "--user",
    "users",
    metavar="NAME:PASSWORD",
    type=param_types.User(),
    multiple=True,
    envvar="LLAMA_USER",
    help="Require these credentials. Repeatable. Every user of this machine can read them in the list of processes: "
    "prefer --user-file or LLAMA_USER.  [env: LLAMA_USER, one per line]",
)
USER_FILE = click.option(
    "--user-file",
    metavar="FILE",
    help="Require credentials from this file: NAME:PASSWORD, one per line. SIGHUP reloads it.",
)
ALLOW_ANONYMOUS = click.option("--allow-anonymous", is_flag=True, help="Allow unauthenticated clients.")
ALLOW_PRIVATE = click.option(
    "--allow-private",
    is_flag=True,
    help="Allow clients on other machines to reach loopback and private addresses, as local clients may.",
)
UDP = click.option(
    "--udp",
    is_flag=True,
    help="Serve UDP ASSOCIATE too: relay datagrams under the same rules as connections. --idle-timeout ends an "
    "association without datagrams.",
)
BIND = click.option(
    "--bind",
    is_flag=True,
    help="Serve BIND too: open a port for one incoming connection, as active FTP needs it, for at most "
    "--idle-timeout.",
)
SOCKS4 = click.option(
    "--socks4",
    is_flag=True,
    help="Serve SOCKS4 and SOCKS4a too, which have no passwords. Not supported with --user.",
)
HOST_HEADER = click.option(
    "--host-header",
    metavar="HOST",
    type=param_types.host_header,
    help="The Host to send to the target: upstream for the target's own, or a HOST[:PORT].  [default: the client's]",
)
HTTP3 = click.option(
    "--http3",
    is_flag=True,
    help="Serve HTTP/3 too, on the UDP ports of the same numbers. Requires --cert and the extra http3.",
)
ACCESS_LOG = click.option(
    "--access-log",
    type=click.Choice(["common", "combined", "json"]),
    is_flag=False,
    flag_value="combined",
    help="Write a line for each request or connection to standard output.  [combined when no format is given]",
)


TO_CERT = click.option(
    "--to-cert",
    metavar="FILE",
    help="Send this client certificate with its chain (PEM) to https:// and h3:// targets.",
)
KEYLOG = click.option(
    "--keylog",
    metavar="FILE",
    is_flag=False,
    flag_value="env",
    help="For debugging: append the TLS secrets of clients and upstreams to this file, for Wireshark. It lets anyone "
    "decrypt all traffic. env, or no value: the file that SSLKEYLOGFILE names, which has no effect otherwise.",
)
TO_KEY = click.option("--to-key", metavar="FILE", help="Its private key, if it is not in the same file.")


def listener_options(default: str) -> Callable[[F], F]:
    """The options that every command has."""

    def decorate(command: F) -> F:
        listen = click.option(
            "--listen",
            metavar="ADDRESS",
            type=param_types.listen,
            multiple=True,
            default=[default],
            help=f"{_LISTEN_HELP}Repeatable.  [default: {default}]",
        )
        for each in (ACCESS_LOG, GRACE(), WORKERS, IDLE(), HANDSHAKE(), KEY, CERT, listen):
            command = each(command)
        return command

    return decorate


def upstream_options(command: F) -> F:
    """The options of commands that reach targets."""
    return VIA(CONNECT()(command))


def access_options(command: F) -> F:
    """The options of proxies whose clients choose the target."""
    return USER(USER_FILE(ALLOW_ANONYMOUS(ALLOW_PRIVATE(command))))


def socks(command: F) -> F:
    """The options of SOCKS servers."""
    return UDP(BIND(SOCKS4(command)))


def client_options(command: F) -> F:
    """The options of commands that send HTTP requests on."""
    return RESPONSE_HEADER_TIMEOUT()(http_options(command))


def http_options(command: F) -> F:
    """The options of commands that serve HTTP."""
    return HTTP3(FIRST_BYTE()(command))


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonOptions:
    """The values of the options; an option that a command does not have keeps its default."""

    listen: tuple[str, ...]
    cert: tuple[str, ...]
    key: tuple[str, ...]
    handshake_timeout: float | None
    idle_timeout: float | None
    workers: int | None
    grace: float | None
    access_log: LogFormat | None
    first_byte_timeout: float | None = None
    response_header_timeout: float | None = None
    via: tuple[str, ...] = ()
    connect_timeout: float | None = None
    users: tuple[tuple[str, str], ...] = ()
    user_file: str | None = None
    allow_anonymous: bool = False
    http3: bool = False
    allow_private: bool = False
    to_cert: str | None = None
    to_key: str | None = None
    keylog: str | None = None
    udp: bool = False
    bind: bool = False
    socks4: bool = False

    @classmethod
    def of(cls, given: Mapping[str, object]) -> CommonOptions:
        return cast("Callable[..., CommonOptions]", cls)(**given)
