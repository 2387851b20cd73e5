"""What a command is told of its proxy, and whom it is to trust: variables, and the files they name."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from llama import ConfigError, Target

# These replace what a program trusts: each names a file with our authority and all that was trusted before.
_REPLACING = (
    "SSL_CERT_FILE",  # OpenSSL, Go, Ruby, curl in many builds
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "npm_config_cafile",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
)
# These add to it.
_ADDING = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # macOS, the BSDs
)


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """Whom a command is to trust besides those it trusts anyway."""

    authority: bytes
    """Our own, in PEM."""
    upstreams: str | None
    """Those of upstreams, a file or directory: what passes through shows theirs."""


def proxy_url(address: str, scheme: str, user: tuple[str, str] | None) -> str:
    """The URL of a proxy that listens there; ConfigError for a path, which has none."""
    if address.startswith("unix:"):
        raise ConfigError(f"--listen: a command cannot be told of a proxy at {address}: expected a port")
    target = Target.parse(address)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(target.host, target.host)
    where = f"[{host}]:{target.port}" if ":" in host else f"{host}:{target.port}"
    return (
        f"{scheme}://{':'.join(quote(part, safe='') for part in user)}@{where}"
        if user
        else f"{scheme}://{where}"
    )


def environment(given: Mapping[str, str], proxy: str, trusted: TrustBundle, folder: Path) -> dict[str, str]:
    """These variables, with the proxy and whom to trust; what they name is written below a folder."""
    made = {name: value for name, value in given.items() if name.lower() not in _PROXIES}
    names = ("all_proxy",) if proxy.startswith("socks") else ("http_proxy", "https_proxy", "all_proxy")
    for name in names:
        made[name] = made[name.upper()] = proxy
    made["no_proxy"] = made["NO_PROXY"] = made["npm_config_noproxy"] = ""
    made["npm_config_proxy"] = made["npm_config_https_proxy"] = proxy  # it knows no ALL_PROXY
    made["NODE_USE_ENV_PROXY"] = "1"
    folder.chmod(0o755)  # the command may run as somebody else
    bundle, extra = folder / "trusted.pem", folder / "authority.pem"
    ours = [trusted.authority, _read(trusted.upstreams)]
    bundle.write_bytes(_joined([*ours, roots(), *(_read(given.get(name)) for name in _REPLACING)]))
    extra.write_bytes(_joined([*ours, *(_read(given.get(name)) for name in _ADDING)]))
    made.update(dict.fromkeys(_REPLACING, str(bundle)))
    made.update(dict.fromkeys(_ADDING, str(extra)))
    made["WGETRC"] = str(_wgetrc(given, bundle, folder))
    return made


def _wgetrc(given: Mapping[str, str], bundle: Path, folder: Path) -> Path:
    """wget knows no variable for this: the settings that it would read, and one more."""
    before = given.get("WGETRC") or os.path.join(given.get("HOME", ""), ".wgetrc")
    made = folder / "wgetrc"
    made.write_bytes(_read(before) + b"\nca_certificate = " + os.fsencode(bundle) + b"\n")
    return made


_PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}


def roots() -> bytes:
    """The certificates that this system trusts, in PEM; empty where they cannot be found."""
    paths = ssl.get_default_verify_paths()
    for file in (paths.cafile, *_BUNDLES):
        if found := _read(file):
            return found
    found = b"".join(ssl.DER_cert_to_PEM_cert(each).encode() for each in _loaded())
    return found or _read(paths.capath)


def _loaded() -> list[bytes]:
    # create_default_context would write keys to the file of SSLKEYLOGFILE.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    return context.get_ca_certs(binary_form=True)


def _read(path: str | None) -> bytes:
    """What is in a file, or in those of a directory; empty where there is none."""
    if not path:
        return b""
    try:
        if os.path.isdir(path):
            return b"".join(each.read_bytes() for each in sorted(Path(path).iterdir()) if each.is_file())
        return Path(path).read_bytes()
    except OSError:
        return b""


def _joined(parts: Iterable[bytes]) -> bytes:
    """The certificates of all, each once."""
    found: dict[bytes, None] = {}
    for part in parts:
        found.update(dict.fromkeys(_CERTIFICATE.findall(part)))
    return b"".join(each + b"\n" for each in found)
