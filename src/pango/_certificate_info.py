"""What is in certificate files, and what is wrong with them, told before anything starts."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtensionOID, NameOID

from llama import ConfigError, tls
from pango._settings import ConfigErrors, KeyFiles, Settings

T = TypeVar("T")
EXPIRY_WARNING = dt.timedelta(days=14)


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """What a certificate file says: the leaf's names, and when it is valid."""

    file: str
    names: tuple[str, ...]
    not_before: dt.datetime
    not_after: dt.datetime

    def __str__(self) -> str:
        names = ", ".join(self.names) or "no names"
        return f"{self.file}: {names}; {self.validity(dt.datetime.now(dt.UTC))}"

    @property
    def needs_attention(self) -> bool:
        """Whether it is not valid now, or not for long."""
        now = dt.datetime.now(dt.UTC)
        return now < self.not_before or now > self.not_after - EXPIRY_WARNING

    def validity(self, now: dt.datetime) -> str:
        """When it is valid, in words."""
        if now < self.not_before:
            return f"NOT VALID before {self.not_before:%Y-%m-%d %H:%M} UTC"
        if now > self.not_after:
            return f"EXPIRED on {self.not_after:%Y-%m-%d %H:%M} UTC"
        left = self.not_after - now
        until = f"valid until {self.not_after:%Y-%m-%d %H:%M} UTC"
        return f"{until}, EXPIRES SOON" if left < EXPIRY_WARNING else f"{until}, {left.days} days"


def examine(settings: Settings, problems: ConfigErrors) -> list[CertificateInfo]:
    """Read every certificate, key and CA file, and open the key log; what is wrong is noted."""
    password = None
    if (file := settings.key_password_file) is not None:
        password = _attempt("key_password_file", problems, partial(read_password, file))
    found = [_examine_pair(files, password, problems) for files in settings.certificates]
    if settings.to_cert is not None:
        found.append(_examine_pair(KeyFiles(settings.to_cert, settings.to_key), None, problems, "to_"))
    for name, file in (("client_ca", settings.client_ca), ("to_ca", settings.to_ca)):
        if file is not None:
            _attempt(name, problems, partial(_load_certificates, file))
    if settings.keylog is not None:
        _attempt("keylog", problems, partial(tls.connect, insecure=True, keylog=settings.keylog))
    return [each for each in found if each is not None]


def read_password(file: str) -> str:
    """The first line of a file."""
    return _read(file).decode(errors="replace").partition("\n")[0].rstrip("\r")


def _attempt(setting: str, problems: ConfigErrors, action: Callable[[], T]) -> T | None:
    try:
        return action()
    except ConfigError as error:
        problems.add(setting, error)
        return None


def _examine_pair(
    files: KeyFiles, password: str | None, problems: ConfigErrors, prefix: str = ""
) -> CertificateInfo | None:
    chain = _attempt(f"{prefix}cert", problems, lambda: _load_certificates(files.cert))
    key_file, setting = (files.cert, f"{prefix}cert") if files.key is None else (files.key, f"{prefix}key")
    public = None
    if chain is not None or files.key is not None:
        public = _attempt(setting, problems, lambda: _load_public(key_file, password))
    if chain is None:
        return None
    if public is not None and public != _public_bytes(chain[0]):
        problems.add(setting, f"{key_file}: this key does not belong to the certificate in {files.cert}")
    return _facts(files.cert, chain[0])


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: {_reason(error)}") from None


def _reason(error: OSError) -> str:
    return (error.strerror or os.strerror(error.errno or 0)).lower()


def _load_certificates(file: str) -> list[x509.Certificate]:
    content = _read(file)
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise ConfigError(f"{file}: holds no certificate: expected PEM") from None


def _load_public(file: str, password: str | None) -> bytes:
    """The public half of the key in a file."""
    content = _read(file)
    if b"PRIVATE KEY-----" not in content:
        raise ConfigError(f"{file}: holds no private key: expected PEM")
    encrypted = b"ENCRYPTED" in content
    try:
        key = load_pem_private_key(
            _private_part(content), password.encode() if encrypted and password is not None else None
        )
    except (TypeError, ValueError):
        if encrypted:
            wanted = "needs a password" if password is None else "is not opened by the password"
            raise ConfigError(f"{file}: the encrypted key {wanted}") from None
        raise ConfigError(f"{file}: the private key cannot be read") from None
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _private_part(content: bytes) -> bytes:
    end = content.index(b"PRIVATE KEY-----")
    return content[content.rindex(b"-----BEGIN", 0, end) :]


def _public_bytes(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _facts(file: str, leaf: x509.Certificate) -> CertificateInfo:
    return CertificateInfo(file, _names(leaf), leaf.not_valid_before_utc, leaf.not_valid_after_utc)


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = leaf.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    except (x509.ExtensionNotFound, ValueError):
        common = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return tuple(str(each.value) for each in common[:1])
    general = cast("x509.SubjectAlternativeName", extension.value)
    addresses = general.get_values_for_type(x509.IPAddress)
    return (*general.get_values_for_type(x509.DNSName), *map(str, addresses))
