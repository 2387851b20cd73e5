"""Connectors through chains of proxies, from URLs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import SplitResult, unquote, urlsplit

from llama import http, socks5, tls
from llama._core.errors import ConfigError
from llama._core.stack import check_accepts, layer_factory
from llama._core.stream import Stream
from llama._core.target import Connector, Target
from llama.tcp import connect as tcp_connect
from llama.tcp._policy.target_patterns import TargetPatterns
from llama.tls._certificates.files import PathLike

DEFAULT_PORTS = {"socks5": 1080, "socks5h": 1080, "http": 80, "https": 443}
FROM_ENVIRONMENT = "env"
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f]")
_FORBIDDEN_HOST = re.compile(r"[\"%<>\\^`{|}]")


@dataclass(frozen=True, slots=True)
class _ChainBuilder:
    """The settings shared by all proxies of a chain."""

    ca: PathLike | None
    handshake_timeout: float | None
    keylog: PathLike | None

    def add(self, url: str, connect: Connector) -> Connector:
        """Return the connector through one more proxy."""
        if url == FROM_ENVIRONMENT:
            return self._from_environment(os.environ, connect)
        scheme, proxy, user, password = _parse(url)
        if scheme == "https":
            connect = tls.connect(
                connect, ca=self.ca, handshake_timeout=self.handshake_timeout, keylog=self.keylog
            )
        if scheme in ("http", "https"):
            return http.connect(
                proxy, user=user, password=password, connect=connect, handshake_timeout=self.handshake_timeout
            )
        return socks5.connect(
            proxy,
            user=user,
            password=password,
            connect=connect,
            resolve="local" if scheme == "socks5" else "remote",
            handshake_timeout=self.handshake_timeout,
        )

    def _from_environment(self, variables: Mapping[str, str], connect: Connector) -> Connector:
        found: dict[str, Connector] = {}
        for scheme in ("http", "https", "all"):
            name, value = _variable(variables, f"{scheme}_proxy")
            if value:
                try:
                    found[scheme] = self.add(value if "://" in value else f"http://{value}", connect)
                except ConfigError as error:
                    raise ConfigError(f"{name}: {error}") from None
        everything = found.get("all", connect)
        direct = _no_proxy(*_variable(variables, "no_proxy"))
        return EnvironmentConnect(
            connect, found.get("http", everything), found.get("https", everything), direct
        )


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class EnvironmentConnect:
    """Connects to targets directly or through a proxy, as the proxy environment variables specify."""

    inner: Connector
    http: Connector
    https: Connector
    direct: TargetPatterns

    __input_type__: ClassVar[type] = Target

    def __repr__(self) -> str:
        return "via(env)"

    async def __call__(self, target: Target, /) -> Stream:
        if target in self.direct:
            return await self.inner(target)
        return await (self.http if target.port == 80 else self.https)(target)


def _variable(variables: Mapping[str, str], name: str) -> tuple[str, str]:
    """Return the name and value of a variable in lower case or, if unset, in upper case; "" if both are unset."""
    upper = name.upper()
    # In a CGI program HTTP_PROXY comes from the request's Proxy header, which any client can send ("httpoxy").
    fake = upper == "HTTP_PROXY" and "REQUEST_METHOD" in variables
    if name in variables or fake:
        return name, variables.get(name, "").strip()
    return upper, variables.get(upper, "").strip()


def _no_proxy(name: str, value: str) -> TargetPatterns:
    """Return the targets to reach directly: a name matches itself and its subdomains, with or without a leading dot."""
    patterns: list[str] = []
    for entry in value.replace(",", " ").split():
        plain = entry.removeprefix("*").removeprefix(".") if entry != "*" else entry
        patterns += [plain] if _is_numeric(plain) or plain == "*" else [plain, f"*.{plain}"]
    try:
        return TargetPatterns(patterns)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def _is_numeric(entry: str) -> bool:
    return (
        entry.startswith("[")
        or entry.count(":") > 1
        or "/" in entry
        or (entry[-1:].isdigit() and (entry.partition(":")[0].replace(".", "").isdigit()))
    )


def _parse(url: str) -> tuple[str, Target, str | None, str | None]:
    """Return the scheme, the proxy and the credentials; the message of a ConfigError never shows the password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its message may contain a part of the password
        raise _invalid_url("is malformed") from None
    if _FORBIDDEN.search(url) is not None:  # urlsplit strips some of these silently
        raise _invalid_url("has a space or a control character")
    if parts.netloc.count("@") > 1:  # ambiguous: one of them may end the password
        raise _invalid_url("has more than one @")
    if _FORBIDDEN_HOST.search(parts.hostname or "") is not None:
        raise _invalid_url("has an invalid host")
    here = url.rpartition("@")[2]
    shown = f"{parts.scheme}://{here}" if "@" in url else url
    if parts.scheme not in DEFAULT_PORTS or "://" not in url:
        raise ConfigError(
            f"{(shown if '://' in url else here)!r} is not a proxy URL: expected socks5://, "
            f"socks5h://, http:// or https://, as in socks5h://HOST:PORT, or {FROM_ENVIRONMENT}"
        )
    if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigError(
            f"{shown!r} is not a proxy URL: expected {parts.scheme}://[USER:PASSWORD@]HOST[:PORT]"
        )
    user, password = _credentials(parts)
    return (
        parts.scheme,
        Target(parts.hostname, DEFAULT_PORTS[parts.scheme] if port is None else port),
        user,
        password,
    )


def _invalid_url(how: str) -> ConfigError:
    return ConfigError(
        f"a proxy URL {how}: expected SCHEME://[USER:PASSWORD@]HOST[:PORT], with other "
        "characters of the user and password as %XX, for example %40 for @"
    )


def _credentials(parts: SplitResult) -> tuple[str | None, str | None]:
    if parts.username is None:
        return None, None
    return unquote(parts.username), unquote(parts.password or "")


@layer_factory("via", "connector")
def via(
    *urls: str,
    connect: Connector | None = None,
    ca: PathLike | None = None,
    handshake_timeout: float | None = None,
    keylog: PathLike | None = None,
) -> Connector:
    """Connect through proxies, each reached through the one before: `via("socks5h://a", "https://b:8443")`.

    A URL is `SCHEME://[USER:PASSWORD@]HOST[:PORT]`: `http` and `https` use CONNECT, `https` over TLS to the proxy
    (`ca` replaces the system's authorities); `socks5h` lets the proxy resolve names, `socks5` resolves them
    locally, as in curl. `env` uses the proxy environment variables: http_proxy for targets on port 80,
    https_proxy for others, all_proxy if these are unset; targets in no_proxy are reached directly. The variables
    are read when `via` is called.

    `connect` connects to the first proxy, by default `tcp.connect()`; `handshake_timeout` limits, in seconds, the
    handshake with each proxy; `keylog` is that of `tls.connect`, for `https` proxies. Raises ConfigError for an
    invalid URL.
    """
    connect = connect or tcp_connect()
    check_accepts(connect, Target, "via(connect=)")
    hops = _ChainBuilder(ca, handshake_timeout, keylog)
    for url in urls:
        connect = hops.add(url, connect)
    return connect
