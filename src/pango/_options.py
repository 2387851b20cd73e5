"""The options of `pango serve`: their help, and how their texts become settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar, cast

import click

from pango import _logs, _parse, _settings
from pango._settings import ConfigErrors, Settings, key_files

F = TypeVar("F", bound=Callable[..., object])

_IDLE = _parse.spell_seconds(_settings.IDLE_TIMEOUT)

OPTIONS = (
    click.option(
        "--listen",
        metavar="ADDRESS",
        multiple=True,
        help="HOST:PORT, :PORT for every address, PORT for this machine only, unix:PATH or fd:NUMBER. "
        f"Repeatable.  [default: {_settings.LISTEN}]",
    ),
    click.option(
        "--cert", metavar="FILE", multiple=True, help="Certificate with its chain (PEM). Repeatable."
    ),
    click.option(
        "--key",
        metavar="FILE",
        multiple=True,
        help="Its private key, if it is not in the same file. One per --cert.",
    ),
    click.option(
        "--key-password-file",
        metavar="FILE",
        help="Read the password of encrypted keys from the first line of this file.",
    ),
    click.option("--client-ca", metavar="FILE", help="Require client certificates signed by this authority."),
    click.option("--alpn", metavar="NAMES", help="Protocols to offer, by preference: h2,http/1.1."),
    click.option("--tls-min", metavar="VERSION", help="Lowest TLS version: 1.2 or 1.3.  [default: 1.2]"),
    click.option("--plain", is_flag=True, help="Do not terminate TLS: a plain TCP proxy."),
    click.option(
        "--to",
        metavar="TARGET",
        multiple=True,
        help="HOST:PORT, tls://HOST:PORT or unix:PATH, or to speak HTTP: http://HOST:PORT, https://, h2c:// (HTTP/2 in "
        "the clear) or h3://HOST:PORT, or http+unix:PATH. With several, each connection or request goes to the next "
        "one in turn, or to the one after it when it cannot be reached.",
    ),
    click.option(
        "--to-ca",
        metavar="FILE",
        help="Verify tls://, https:// and h3:// targets against this, not the system's authorities.",
    ),
    click.option(
        "--to-insecure",
        is_flag=True,
        help="Do not verify the certificates of tls://, https:// and h3:// targets.",
    ),
    click.option(
        "--to-cert",
        metavar="FILE",
        help="Send this client certificate with its chain (PEM) to tls://, https:// and h3:// targets.",
    ),
    click.option("--to-key", metavar="FILE", help="Its private key, if it is not in the same file."),
    click.option(
        "--keylog",
        metavar="FILE",
        is_flag=False,
        flag_value="env",
        help="For debugging: append the TLS secrets of clients and targets to this file, for Wireshark. It lets anyone "
        "decrypt all traffic. env, or no value: the file that SSLKEYLOGFILE names, which has no effect otherwise.",
    ),
    click.option(
        "--proxy-protocol",
        metavar="[1|2]",
        is_flag=False,
        flag_value="2",
        help="Send the client's address to targets in a PROXY header of this version.  [2 when none is given]",
    ),
    click.option(
        "--proxy-protocol-from",
        metavar="NETWORKS",
        multiple=True,
        help="Expect a PROXY header from clients in these networks: 10.0.0.0/8,127.0.0.1.",
    ),
    click.option(
        "--max-connections",
        metavar="N",
        help="Maximum concurrent connections per worker; more wait in the listen queue.  [default: no limit]",
    ),
    click.option(
        "--handshake-timeout",
        metavar="TIME",
        help="Timeout for a client's TLS handshake, its PROXY header, and the head of each HTTP request.  "
        f"[default: {_settings.HANDSHAKE_TIMEOUT:g}s]",
    ),
    click.option(
        "--connect-timeout",
        metavar="TIME",
        help=f"Timeout for connecting to a target.  [default: {_settings.CONNECT_TIMEOUT:g}s]",
    ),
    click.option(
        "--idle-timeout",
        metavar="TIME",
        help="Close a connection after this time without traffic in either direction. An HTTP client must send "
        f"the first byte of a new connection within {_settings.FIRST_BYTE_TIMEOUT:g}s, and make progress with "
        f"each body within {_settings.CLIENT_TIMEOUT:g}s.  [default: {_IDLE}]",
    ),
    click.option(
        "--response-header-timeout",
        metavar="TIME",
        help="With http:// targets: timeout for the response head, once the request is sent.  [default: off]",
    ),
    click.option(
        "--retries",
        metavar="N",
        help="With http:// targets: retry idempotent requests on up to N other upstreams.  "
        f"[default: {_settings.RETRIES}]",
    ),
    click.option(
        "--forwarded-from",
        metavar="NETWORKS",
        multiple=True,
        help="With http:// targets: take the client's address, scheme and host from the X-Forwarded-For, -Proto and "
        "-Host that proxies in these networks send. From other peers these fields are dropped.",
    ),
    click.option(
        "--forwarded-header",
        metavar="NAME",
        help="The header that those proxies set: x-forwarded-for (with -proto and -host) or forwarded (RFC 7239).  "
        "[default: x-forwarded-for]",
    ),
    click.option(
        "--access-log",
        metavar="FORMAT",
        is_flag=False,
        flag_value="combined",
        help="With http:// targets: write a line for each request to standard output: common, combined or json.  "
        "[combined when none is given]",
    ),
    click.option(
        "--http3",
        is_flag=True,
        help="With http:// targets: serve HTTP/3 too, on the UDP ports of the same numbers. Requires the extra http3.",
    ),
    click.option(
        "--grace",
        metavar="TIME",
        help="Maximum wait for open connections and requests after SIGTERM or SIGINT.  [default: off]",
    ),
    click.option(
        "--workers",
        metavar="N",
        help="Worker processes, each replaced when it dies.  [default: this process alone]",
    ),
    click.option("--log-format", metavar="FORMAT", help="text or json.  [default: text]"),
    click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.  [default: info]"),
)


def options(command: F) -> F:
    """Add all options to a command, in the order of the help."""
    for each in reversed(OPTIONS):
        command = each(command)
    return command


def display_name(setting: str) -> str:
    """Return the name of the option for a setting."""
    return "--" + {"minimum_version": "tls-min"}.get(setting, setting).replace("_", "-")


class RawOptions:
    """The texts that were given on the command line."""

    def __init__(self, given: Mapping[str, object], problems: ConfigErrors) -> None:
        self._given = given
        self._problems = problems

    def one(self, name: str) -> str | None:
        return cast("str | None", self._given[name])

    def all(self, name: str) -> tuple[str, ...]:
        return cast("tuple[str, ...]", self._given[name])

    def is_set(self, name: str) -> bool:
        return bool(self._given[name])

    def seconds(self, name: str, default: float | None) -> float | None:
        return self._problems.read(name, _parse.seconds, self.one(name), default)


def read_logging(given: Mapping[str, object], problems: ConfigErrors) -> tuple[str, str]:
    """The log's format and level; what is wrong is noted."""
    texts = RawOptions(given, problems)
    style = problems.read("log_format", _parse.one_of(*_logs.FORMATS), texts.one("log_format"), "text")
    return style, problems.read("log_level", _parse.one_of(*_logs.LEVELS), texts.one("log_level"), "info")


def read(given: Mapping[str, object], problems: ConfigErrors) -> Settings:
    """Settings from what was given; every problem is noted, and the default takes its place."""
    texts = RawOptions(given, problems)
    versions = _parse.one_of("1.2", "1.3")
    proxy = problems.read("proxy_protocol", _parse.one_of("1", "2"), texts.one("proxy_protocol"), None)
    networks = problems.read_all("proxy_protocol_from", _parse.networks, texts.all("proxy_protocol_from"))
    forwarded = problems.read_all("forwarded_from", _parse.networks, texts.all("forwarded_from"))
    formats = _parse.one_of(*_settings.ACCESS_LOGS)
    names = _parse.one_of(*_settings.FORWARDED_HEADERS)
    header = problems.read("forwarded_header", names, texts.one("forwarded_header"), "x-forwarded-for")
    access_log = problems.read("access_log", formats, texts.one("access_log"), None)
    alpn = problems.read("alpn", _parse.protocols, texts.one("alpn"), None)
    return Settings(
        listen=problems.read_all("listen", _parse.listen, texts.all("listen") or (_settings.LISTEN,)),
        certificates=key_files(texts.all("cert"), texts.all("key"), problems),
        key_password_file=texts.one("key_password_file"),
        client_ca=texts.one("client_ca"),
        alpn=alpn,
        minimum_version=problems.read("minimum_version", versions, texts.one("tls_min"), "1.2"),
        plain=texts.is_set("plain"),
        to=problems.read_all("to", _parse.target, texts.all("to")),
        to_ca=texts.one("to_ca"),
        to_insecure=texts.is_set("to_insecure"),
        to_cert=texts.one("to_cert"),
        to_key=texts.one("to_key"),
        keylog=problems.read("keylog", _parse.keylog, texts.one("keylog"), None),
        proxy_protocol=None if proxy is None else int(proxy),
        proxy_protocol_from=tuple(each for group in networks for each in group),
        max_connections=problems.read("max_connections", _parse.count, texts.one("max_connections"), None),
        handshake_timeout=texts.seconds("handshake_timeout", _settings.HANDSHAKE_TIMEOUT),
        connect_timeout=texts.seconds("connect_timeout", _settings.CONNECT_TIMEOUT),
        idle_timeout=texts.seconds("idle_timeout", _settings.IDLE_TIMEOUT),
        response_header_timeout=texts.seconds("response_header_timeout", None),
        retries=problems.read("retries", _parse.count_from_0, texts.one("retries"), _settings.RETRIES),
        forwarded_from=tuple(each for group in forwarded for each in group),
        forwarded_header=cast("_settings.ForwardedHeader", header),
        access_log=cast("_settings.AccessLog | None", access_log),
        http3=texts.is_set("http3"),
        grace=texts.seconds("grace", None),
        workers=problems.read("workers", _parse.count, texts.one("workers"), None),
    )
