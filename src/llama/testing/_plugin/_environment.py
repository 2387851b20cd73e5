"""The environment variables that lead clients to a proxy, and let them trust its authority."""

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

_urllib: Any = urllib.request  # what it keeps has no public name


def variables(url: str, ca_file: Path) -> dict[str, str]:
    """What to set so that clients go by a proxy, to every host."""
    proxies: dict[str, str] = {**dict.fromkeys(_PROXY, url), "NO_PROXY": ""}
    both = {**proxies, **{name.lower(): value for name, value in proxies.items()}}
    return {**both, **dict.fromkeys(_AUTHORITY, str(ca_file)), "NODE_USE_ENV_PROXY": "1"}


@contextmanager
def environment(values: Mapping[str, str]) -> Generator[None]:
    """Set variables within the block; after it they are as they were."""
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
    """Let urllib look at the variables again, as it did when `urlopen` was first called; what it had till then.

    An opener that somebody made of other parts stays.
    """
    opener: object = _urllib._opener
    usual = {type(each) for each in _parts(urllib.request.build_opener())} | {urllib.request.ProxyHandler}
    if {type(each) for each in _parts(opener)} <= usual:
        _urllib._opener = None
    return opener


def _parts(opener: object) -> list[object]:
    return list(getattr(opener, "handlers", ()))


def authorities(folder: Path) -> Path | bool:
    """The authorities that this process trusts now: a file or a directory, for when the variables tell another.

    True where there is neither, as on Windows without a store.
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
