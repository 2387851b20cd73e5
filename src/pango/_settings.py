"""What pango is set to do, whoever says so: the command line, or a call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

from llama import ConfigError
from pango import _parse

T = TypeVar("T")

LISTEN = "localhost:8443"
HANDSHAKE_TIMEOUT = 10.0
CONNECT_TIMEOUT = 10.0
IDLE_TIMEOUT = 600.0
FIRST_BYTE_TIMEOUT = 60.0
CLIENT_TIMEOUT = 60.0
RETRIES = 1
ACCESS_LOGS = ("common", "combined", "json")
AccessLog: TypeAlias = Literal["common", "combined", "json"]
FORWARDED_HEADERS = ("x-forwarded-for", "forwarded")
ForwardedHeader: TypeAlias = Literal["x-forwarded-for", "forwarded"]


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """A certificate's file and its key's; None where the key is in the same file."""

    cert: str
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set; times in seconds, None for no limit."""

    listen: tuple[str, ...] = (LISTEN,)
    certificates: tuple[KeyFiles, ...] = ()
    key_password_file: str | None = None
    client_ca: str | None = None
    alpn: tuple[str, ...] | None = None
    minimum_version: str = "1.2"
    plain: bool = False
    to: tuple[str, ...] = ()
    to_ca: str | None = None
    to_insecure: bool = False
    to_cert: str | None = None
    to_key: str | None = None
    keylog: str | None = None
    proxy_protocol: int | None = None
    proxy_protocol_from: tuple[str, ...] = ()
    max_connections: int | None = None
    handshake_timeout: float | None = HANDSHAKE_TIMEOUT
    connect_timeout: float | None = CONNECT_TIMEOUT
    idle_timeout: float | None = IDLE_TIMEOUT
    response_header_timeout: float | None = None
    retries: int = RETRIES
    forwarded_from: tuple[str, ...] = ()
    forwarded_header: ForwardedHeader = "x-forwarded-for"
    access_log: AccessLog | None = None
    http3: bool = False
    grace: float | None = None
    workers: int | None = None

    @property
    def is_http(self) -> bool:
        """Whether the targets are spoken HTTP to."""
        return any(map(_parse.is_http, self.to))


class ConfigErrors:
    """Collects what is wrong, so that all of it can be said at once.

    `display_name` turns the name of a setting into what the user wrote: `to_ca` is `--to-ca` on a command line.
    """

    def __init__(self, spell: Callable[[str], str] = str) -> None:
        self._display_name = spell
        self._settings: set[str] = set()
        self.found: list[str] = []

    def __contains__(self, setting: str) -> bool:
        return setting in self._settings

    def display_name(self, setting: str) -> str:
        """A setting as its user writes it."""
        return self._display_name(setting)

    def add(self, setting: str, message: object) -> None:
        """Note what is wrong with a setting."""
        self._settings.add(setting)
        line = f"{self._display_name(setting)}: {message}"
        if line not in self.found:
            self.found.append(line)

    def read(self, setting: str, reader: Callable[[str], T], text: str | None, default: T) -> T:
        """Read a text; the default where there is none, or where it is wrong, which is noted."""
        if text is None:
            return default
        try:
            return reader(text)
        except ConfigError as error:
            self.add(setting, error)
            return default

    def read_all(self, setting: str, reader: Callable[[str], T], texts: Iterable[str]) -> tuple[T, ...]:
        """Read each text; wrong ones are noted and left out."""
        found: list[T] = []
        for text in texts:
            try:
                found.append(reader(text))
            except ConfigError as error:
                self.add(setting, error)
        return tuple(found)

    def check(self) -> None:
        """Raise ConfigError with every problem on a line of its own."""
        if self.found:
            raise ConfigError("\n".join(self.found))


def key_files(certs: tuple[str, ...], keys: tuple[str, ...], problems: ConfigErrors) -> tuple[KeyFiles, ...]:
    """Pairs of files in the order given; no keys at all where each is in its certificate's file."""
    if not keys:
        return tuple(KeyFiles(cert) for cert in certs)
    if len(certs) != len(keys):
        expected = (
            f"expected one {problems.display_name('key')} for each {problems.display_name('cert')}, or none"
        )
        problems.add("key", f"{len(keys)} for {len(certs)} certificates: {expected}")
    return tuple(KeyFiles(cert, key) for cert, key in zip(certs, keys, strict=False))


def check_together(settings: Settings, problems: ConfigErrors) -> None:
    """Note the settings that do not go together."""
    spell = problems.display_name
    if not settings.listen and "listen" not in problems:
        problems.add("listen", "expected at least one address")
    if settings.plain:
        for name in ("certificates", "client_ca", "alpn", "key_password_file"):
            if getattr(settings, name):
                named = "cert" if name == "certificates" else name
                problems.add(named, f"does not go with {spell('plain')}, which terminates no TLS")
        if settings.keylog and not any(each.startswith(_parse.SECURE) for each in settings.to):
            problems.add("keylog", f"with {spell('plain')}, expected targets that are reached over TLS")
    elif not settings.certificates:
        problems.add("cert", f"missing: expected a PEM file, or {spell('plain')} for no TLS")
    _check_targets(settings, problems)
    if settings.http3:
        _check_http3(settings, problems)
    for address in sorted({each for each in settings.listen if settings.listen.count(each) > 1}):
        problems.add("listen", f"{address!r} is given twice")


def _check_targets(settings: Settings, problems: ConfigErrors) -> None:
    to = problems.display_name("to")
    if not any(each.startswith(_parse.SECURE) for each in settings.to):
        for name in ("to_ca", "to_insecure", "to_cert"):
            if getattr(settings, name):
                problems.add(
                    name, f"goes with {to} tls://HOST:PORT, https://HOST:PORT and h3://HOST:PORT only"
                )
    if settings.is_http:
        others = [each for each in settings.to if not _parse.is_http(each)]
        if others:
            problems.add(
                "to", f"{others[0]!r} is not HTTP as others are: expected all of them to be, or none"
            )
        if settings.proxy_protocol is not None:
            problems.add("proxy_protocol", f"does not go with {to} http://, which is told by X-Forwarded-For")
    elif settings.to:
        for name in ("access_log", "response_header_timeout", "forwarded_from", "http3"):
            if getattr(settings, name):
                problems.add(name, f"goes with {to} http://HOST:PORT and https://HOST:PORT only")
    if settings.forwarded_header != FORWARDED_HEADERS[0] and not settings.forwarded_from:
        problems.add("forwarded_header", f"expected {problems.display_name('forwarded_from')} too")
    if settings.to_key and not settings.to_cert:
        problems.add("to_key", f"goes with {problems.display_name('to_cert')} only")
    if settings.to_ca and settings.to_insecure:
        problems.add("to_insecure", f"does not go with {problems.display_name('to_ca')}, which verifies")


def _check_http3(settings: Settings, problems: ConfigErrors) -> None:
    spell = problems.display_name
    if settings.plain:
        problems.add("http3", f"does not go with {spell('plain')}: HTTP/3 is spoken over TLS only")
    if settings.proxy_protocol_from:
        problems.add(
            "http3", f"does not go with {spell('proxy_protocol_from')}: there is no such header in UDP"
        )
    for each in settings.listen:
        if each.startswith(("unix:", "fd:")) or each.endswith(":0"):
            problems.add("http3", f"there is no UDP port beside {each}: expected {spell('listen')} HOST:PORT")


def check_values(settings: Settings, problems: ConfigErrors) -> None:
    """Note the values that a reader of text would have refused, for settings that came by a call."""
    problems.read_all("listen", _parse.listen, settings.listen)
    problems.read_all("to", _parse.target, settings.to)
    problems.read_all("proxy_protocol_from", _parse.networks, settings.proxy_protocol_from)
    problems.read_all("forwarded_from", _parse.networks, settings.forwarded_from)
    for name in ("handshake_timeout", "connect_timeout", "idle_timeout", "response_header_timeout", "grace"):
        value: object = getattr(settings, name)
        if value is not None and not (isinstance(value, (int, float)) and value > 0):
            problems.add(name, f"{value!r} is no length of time: expected seconds above 0, or None")
    if settings.minimum_version not in ("1.2", "1.3"):
        problems.add("minimum_version", f"{settings.minimum_version!r} is not known: expected '1.2' or '1.3'")
    if settings.proxy_protocol not in (None, 1, 2):
        problems.add("proxy_protocol", f"{settings.proxy_protocol!r} is not known: expected 1, 2 or None")
    if settings.access_log not in (None, *ACCESS_LOGS):
        expected = "expected 'common', 'combined', 'json' or None"
        problems.add("access_log", f"{settings.access_log!r} is not known: {expected}")
    if settings.forwarded_header not in FORWARDED_HEADERS:
        expected = f"expected {' or '.join(map(repr, FORWARDED_HEADERS))}"
        problems.add("forwarded_header", f"{settings.forwarded_header!r} is not known: {expected}")
    for name, least in (("workers", 1), ("max_connections", 1), ("retries", 0)):
        value = getattr(settings, name)
        if (value is not None or name == "retries") and not (isinstance(value, int) and value >= least):
            problems.add(name, f"{value!r} is no count: expected a whole number from {least} up")
