"""The authorities that an HTTP/3 client trusts, and the loading of certificates with their keys."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from qh3.quic.configuration import QuicConfiguration

from llama._core.errors import ConfigError
from llama.http._h3.settings import H3Identity, PathLike
from llama.tls._certificates.files import load_authority, load_pair

_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"


def configure_verification(configuration: QuicConfiguration, identity: H3Identity) -> None:
    """Configure a client's authorities, by default the system's, and its own certificate."""
    if identity.verify:
        # Read once: the library would read the system's for every connection, and does not support directories.
        configuration.cadata = (
            _system_authorities() if identity.ca is None else _authorities(Path(identity.ca))
        )
    else:
        configuration.verify_mode = ssl.CERT_NONE
    if identity.cert is not None:
        load_identity(configuration, identity.cert, identity.key, identity.password)


def _authorities(path: Path) -> bytes:
    load_authority(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), path)  # for its error messages
    return b"".join(_blocks(path))


def _system_authorities() -> bytes:
    """Return the authorities that `tls.connect` trusts, including those of SSL_CERT_FILE and SSL_CERT_DIR."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    found = {ssl.DER_cert_to_PEM_cert(each).encode() for each in context.get_ca_certs(binary_form=True)}
    if folder := ssl.get_default_verify_paths().capath:
        found.update(_blocks(Path(folder)))
    return b"".join(sorted(found))


def _blocks(path: Path) -> Iterator[bytes]:
    """Yield the certificates of a file, or of all files in a directory."""
    for each in sorted(path.iterdir()) if path.is_dir() else [path]:
        try:
            text = each.read_bytes()
        except OSError:  # a directory, or a broken link
            continue
        for part in text.split(_BEGIN)[1:]:
            yield _BEGIN + part.partition(_END)[0].replace(b"\r", b"") + _END + b"\n"


def load_identity(
    configuration: QuicConfiguration,
    cert: PathLike,
    key: PathLike | None,
    password: str | Callable[[], str] | None,
) -> None:
    """Load a certificate chain and its key. Raises ConfigError if a file cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    load_pair(context, cert, key, password)  # for its error messages
    chain = x509.load_pem_x509_certificates(Path(cert).read_bytes())
    secret = password() if callable(password) else password
    content = Path(key or cert).read_bytes()
    private = content[content.rindex(b"-----BEGIN", 0, content.index(b"PRIVATE KEY-----")) :]
    loaded = load_pem_private_key(private, secret.encode() if secret and b"ENCRYPTED" in private else None)
    plain = loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    load = configuration.load_cert_chain  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    try:
        load(b"".join(each.public_bytes(Encoding.PEM) for each in chain), plain)
    except Exception as error:  # the library raises errors of many kinds
        raise ConfigError(f"{os.fspath(cert)}: HTTP/3 cannot use this certificate: {error}") from error
