"""A certificate authority of one's own: for development, for tests, for looking inside TLS with consent."""

import os
import stat
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509.oid import NameOID

from llama._errors import ConfigError
from llama.tls._key_pair import KeyPair, create_file, replace_file
from llama.tls._x509 import (
    CLIENT_AUTH,
    CLIENT_USAGE,
    LONGEST_COMMON_NAME,
    LONGEST_LIFE,
    NO_AUTHORITY,
    SERVER_AUTH,
    KeyKind,
    LeafKey,
    PrivateKey,
    alternative_names,
    between,
    dated,
    encode_key,
    general_name,
    key_usage,
    new_key,
)

_CERTIFICATE, _KEY = "ca.pem", "ca.key"
_LONGEST_PAST = timedelta(days=30)


class CertificateAuthority:
    """Signs certificates. Clients trust them once they trust `pem`, the authority's own certificate.

    Made by `create`, in memory, or `open`, in a directory. Its key is worth guarding: who has it can pretend to
    be any server to those clients.
    """

    def __init__(self, certificates: Sequence[x509.Certificate], key: PrivateKey) -> None:
        """Take a certificate and its key, then the certificates between it and its root, if it is no root."""
        self._certificate = certificates[0]
        self._chain = certificates
        self._key = key
        self._leaf_keys: dict[KeyKind, LeafKey] = {}
        self._check()

    @classmethod
    def create(
        cls, *, name: str = "llama", days: float = 3650, key: KeyKind = "ec"
    ) -> "CertificateAuthority":
        """A new authority, in memory only."""
        if not 0 < len(name) <= LONGEST_COMMON_NAME:
            raise ConfigError(f"{name!r} is no name for an authority: 1 to {LONGEST_COMMON_NAME} characters")
        private = new_key(key)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        identifier = x509.SubjectKeyIdentifier.from_public_key(private.public_key())
        builder = (
            dated(x509.CertificateBuilder(), days)
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(private.public_key())
            .serial_number(x509.random_serial_number())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(identifier, critical=False)
        )
        return cls([builder.sign(private, hashes.SHA256())], private)

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        *,
        name: str = "llama",
        days: float = 3650,
        key: KeyKind = "ec",
    ) -> "CertificateAuthority":
        """The authority kept in a directory, created there when there is none.

        `ca.key` holds the key and the certificate, for its owner alone; `ca.pem` holds the certificate, to be
        handed out. Where one's own `ca.key` has no certificate in it, `ca.pem` is read. Raises ConfigError
        where these are no authority, or others may read the key.
        """
        folder = Path(directory)
        secret, public = folder / _KEY, folder / _CERTIFICATE
        if not secret.exists():
            if public.exists() and not secret.exists():
                raise ConfigError(f"{public} is there without its key: remove it to make a new authority")
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = cls.create(name=name, days=days, key=key)
            # Where another process was faster, its authority is the one to use.
            create_file(secret, encode_key(fresh._key) + fresh.pem, 0o600)
        _check_mode(secret)
        authority = _load(secret, public)
        if not public.exists():
            replace_file(public, authority.pem, 0o644)
        return authority

    @classmethod
    def rotate(
        cls,
        directory: str | os.PathLike[str],
        *,
        name: str = "llama",
        days: float = 3650,
        key: KeyKind = "ec",
    ) -> "CertificateAuthority":
        """A new authority in the place of the one kept in a directory.

        Clients have to trust the new `ca.pem`. The old certificate stays beside it, as `ca-SERIAL.pem`, so that
        it can be found in their stores and taken out; its key goes.
        """
        old = cls.open(directory, name=name, days=days, key=key)
        folder = Path(directory)
        old.write_pem(folder / f"ca-{old.certificate.serial_number:x}.pem")
        fresh = cls.create(name=name, days=days, key=key)
        # The key's file holds its certificate too, so that there is no moment when the two do not fit.
        replace_file(folder / _KEY, encode_key(fresh._key) + fresh.pem, 0o600)
        replace_file(folder / _CERTIFICATE, fresh.pem, 0o644)
        return fresh

    @property
    def pem(self) -> bytes:
        """The certificate that clients are to trust."""
        return self._certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        """The same in DER, as Windows and Android take it."""
        return self._certificate.public_bytes(Encoding.DER)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the certificate, as browsers show it: `AB:CD:...`."""
        return self._certificate.fingerprint(hashes.SHA256()).hex(":").upper()

    def pkcs12(self, password: str | None = None, *, key: bool = False) -> bytes:
        """The certificate as PKCS#12; with `key` its private key too, for whoever moves the authority."""
        if key and not password:
            raise ConfigError("the private key leaves in PKCS#12 under a password only")
        lock = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        name = self._certificate.subject.rfc4514_string().encode()
        if key:
            return pkcs12.serialize_key_and_certificates(name, self._key, self._certificate, None, lock)
        return pkcs12.serialize_java_truststore([pkcs12.PKCS12Certificate(self._certificate, name)], lock)

    @property
    def certificate(self) -> x509.Certificate:
        """The same, parsed."""
        return self._certificate

    def write_pem(self, path: str | os.PathLike[str]) -> Path:
        """Write `pem` to a file, over an older one; gives its path."""
        replace_file(Path(path), self.pem, 0o644)
        return Path(path)

    def issue(
        self,
        *names: str | IPv4Address | IPv6Address,
        days: float = 90,
        client: bool = False,
        key: KeyKind = "ec",
        reuse_key: bool = False,
    ) -> KeyPair:
        """A certificate for host names, `*.` names and addresses, or with `client` for whoever connects.

        The first name is the subject too. A client's name may be any text; one with an `@` is a mail address.
        It ends no later than the authority does. With `reuse_key` all certificates share one key of this
        authority, which makes a new one cost a signature only. Raises ConfigError for what is no name.
        """
        if not names:
            raise ConfigError("a certificate needs a name or an address")
        alternatives = [name for text in names if (name := general_name(text, client))]
        subject = str(names[0]) if client else str(alternatives[0].value)
        builder = dated(x509.CertificateBuilder(), days, self._certificate.not_valid_after_utc)
        return self._sign(builder, subject, alternatives, self._leaf_key(key, reuse_key), client)

    def mirror(self, certificate: x509.Certificate, *names: str) -> KeyPair:
        """A certificate for these names and for those that a server's own has, with the same span of time.

        What has no place in such a certificate is left out, also names beyond the first hundred. The span is
        clipped: it begins 30 days ago at the earliest, ends after 397 days and with the authority at the latest;
        one that is over, or still to come, is a day either way from now. All share one key of this authority.
        Raises ConfigError where no name is left.
        """
        wanted = [found for text in names if (found := general_name(text, False))]
        alternatives = [*wanted, *(each for each in alternative_names(certificate) if each not in wanted)]
        if not alternatives:
            raise ConfigError("a certificate needs a name or an address")
        now = datetime.now(UTC)
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not start <= now < end:
            start, end = now - timedelta(days=1), now + timedelta(days=1)
        start = max(start, now - _LONGEST_PAST)
        end = min(end, start + LONGEST_LIFE, self._certificate.not_valid_after_utc)
        builder = between(x509.CertificateBuilder(), start, end)
        return self._sign(
            builder, str(alternatives[0].value), alternatives, self._leaf_key("ec", True), False
        )

    def _sign(
        self,
        builder: x509.CertificateBuilder,
        subject: str,
        alternatives: Sequence[x509.GeneralName],
        own: LeafKey,
        client: bool,
    ) -> KeyPair:
        fits = len(subject) <= LONGEST_COMMON_NAME
        common_name = [x509.NameAttribute(NameOID.COMMON_NAME, subject)] if fits else []
        builder = (
            builder.subject_name(x509.Name(common_name))
            .issuer_name(self._certificate.subject)
            .public_key(own.public)
            .serial_number(x509.random_serial_number())
        )
        for extension, critical in self._leaf_extensions(own, client):
            builder = builder.add_extension(extension, critical=critical)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=not fits)
        leaf = builder.sign(self._key, hashes.SHA256())
        return KeyPair(leaf.public_bytes(Encoding.PEM) + self._chain_pem, own.pem)

    def _leaf_extensions(self, own: LeafKey, client: bool) -> list[tuple[x509.ExtensionType, bool]]:
        return [
            (NO_AUTHORITY, True),
            (CLIENT_USAGE if client else own.usage, True),
            (CLIENT_AUTH if client else SERVER_AUTH, False),
            (own.identifier, False),
            (self._authority_identifier, False),
        ]

    def _leaf_key(self, kind: KeyKind, reuse: bool) -> LeafKey:
        if reuse and kind in self._leaf_keys:
            return self._leaf_keys[kind]
        made = LeafKey.make(kind)
        # Where two threads come at once, one key stays.
        return self._leaf_keys.setdefault(kind, made) if reuse else made

    @cached_property
    def _authority_identifier(self) -> x509.AuthorityKeyIdentifier:
        try:
            own = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)

    @cached_property
    def _chain_pem(self) -> bytes:
        """What a server sends after its own certificate: all but the root, which clients have."""
        between = [own for own in self._chain if own.subject != own.issuer]
        return b"".join(own.public_bytes(Encoding.PEM) for own in between)

    def _check(self) -> None:
        if self._certificate.public_key() != self._key.public_key():
            raise ConfigError(f"the key does not belong to the certificate of {self}")
        try:
            is_ca = self._certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except x509.ExtensionNotFound:
            is_ca = False
        if not is_ca:
            raise ConfigError(f"the certificate of {self} is not one of an authority (CA:TRUE)")
        end = self._certificate.not_valid_after_utc
        if end <= datetime.now(UTC):
            raise ConfigError(f"the certificate of {self} ended on {end:%Y-%m-%d}")

    def __repr__(self) -> str:
        return f"CertificateAuthority({self._certificate.subject.rfc4514_string()!r})"


def _check_mode(secret: Path) -> None:
    """Refuse a key that others can read. Windows has no such bits: there the directory's rights decide."""
    mode = stat.S_IMODE(secret.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        raise ConfigError(f"others may read the key in {secret} (mode {mode:04o}): chmod 600 {secret}")


def _load(secret: Path, public: Path) -> CertificateAuthority:
    data = secret.read_bytes()
    source = secret if b"BEGIN CERTIFICATE" in data else public
    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        raise ConfigError(f"the key in {secret} has a password: store it without one") from None
    except ValueError as error:
        raise ConfigError(f"{secret} holds no private key in PEM: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ConfigError(f"the key in {secret} is neither EC nor RSA")
    try:
        certificates = x509.load_pem_x509_certificates(source.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{secret} is there without its certificate, {public}") from None
    except ValueError as error:
        raise ConfigError(f"{source} holds no certificate in PEM: {error}") from None
    try:
        return CertificateAuthority(certificates, key)
    except ConfigError as error:
        raise ConfigError(
            f"{source}: {error}; remove {secret} and {public} to make a new authority"
        ) from None
