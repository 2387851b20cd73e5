"""The environment variables that make clients use a proxy and trust its CA."""

from __future__ import annotations

import os
import ssl
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PROXY = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_AUTHORITY = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "AWS_CA_BUNDLE",
    "DENO_CERT",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
)

_urllib: Any = urllib.request  # its cached opener has no public name


def variables(url: str, ca_file: Path) -> dict[str, str]:
    """Return the variables that make clients use a proxy for every host."""
    proxies: dict[str, str] = {**dict.fromkeys(_PROXY, url), "NO_PROXY": ""}
    both = {**proxies, **{name.lower(): value for name, value in proxies.items()}}
    return {**both, **dict.fromkeys(_AUTHORITY, str(ca_file)), "NODE_USE_ENV_PROXY": "1"}


@contextmanager
def environment(values: Mapping[str, str]) -> Generator[None]:
    """Set variables within the block, then restore them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    opener = _forget_opener()
    try:
        yield
    finally:
        _forget_opener()
        _urllib._opener = opener
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _forget_opener() -> object:
    """Make urllib read the variables again, as in the first call of `urlopen`; return its previous opener.

    A custom opener is kept.
    """
    opener: object = _urllib._opener
    usual = {type(each) for each in _parts(urllib.request.build_opener())} | {urllib.request.ProxyHandler}
    if {type(each) for each in _parts(opener)} <= usual:
        _urllib._opener = None
    return opener


def _parts(opener: object) -> list[object]:
    return list(getattr(opener, "handlers", ()))


def authorities(folder: Path) -> Path | bool:
    """Return the CA file or directory that this process trusts now, before the variables replace it.

    Returns True if there is neither, as on Windows without a store.
    """
    paths = ssl.get_default_verify_paths()
    for found in (paths.cafile, paths.capath):
        if found:
            return Path(found)
    # create_default_context would write keys to the file of SSLKEYLOGFILE.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    known = context.get_ca_certs(binary_form=True)
    if not known:
        return True
    bundle = folder / "system.pem"
    bundle.write_text("".join(map(ssl.DER_cert_to_PEM_cert, known)))
    return bundle
