"""A private certificate authority for development, tests and TLS interception."""

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

from llama._core.errors import ConfigError
from llama.tls._certificates.key_pair import KeyPair, create_file, replace_file
from llama.tls._certificates.x509 import (
    CLIENT_AUTH,
    CLIENT_USAGE,
    MAX_COMMON_NAME,
    MAX_VALIDITY_DAYS,
    NO_AUTHORITY,
    SERVER_AUTH,
    KeyKind,
    LeafKey,
    PrivateKey,
    alternative_names,
    encode_key,
    general_name,
    key_usage,
    new_key,
    set_validity,
    set_validity_period,
)

_CERTIFICATE, _KEY = "ca.pem", "ca.key"
_MAX_BACKDATE = timedelta(days=30)


class CertificateAuthority:
    """A certificate authority. Clients that trust `pem`, its certificate, trust the certificates it signs.

    `create` makes one in memory, `open` one in a directory. Protect its key: anyone who has it can impersonate
    any server to those clients.
    """

    def __init__(self, certificates: Sequence[x509.Certificate], key: PrivateKey) -> None:
        """Take the authority's certificate, any intermediates between it and its root, and its key."""
        self._certificate = certificates[0]
        self._chain = certificates
        self._key = key
        self._leaf_keys: dict[KeyKind, LeafKey] = {}
        self._check()

    @classmethod
    def create(
        cls, *, name: str = "llama", days: float = 3650, key: KeyKind = "ec"
    ) -> "CertificateAuthority":
        """Create a new authority in memory."""
        if not 0 < len(name) <= MAX_COMMON_NAME:
            raise ConfigError(f"name={name!r}: expected 1 to {MAX_COMMON_NAME} characters")
        private = new_key(key)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        identifier = x509.SubjectKeyIdentifier.from_public_key(private.public_key())
        builder = (
            set_validity(x509.CertificateBuilder(), days)
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
        """Open the authority stored in a directory, or create one there.

        `ca.key` holds the key and the certificate and is readable by its owner only; `ca.pem` holds the
        certificate, to distribute. If `ca.key` holds no certificate, `ca.pem` is read. Raises ConfigError if the
        files are not a valid authority or other users can read the key.
        """
        folder = Path(directory)
        secret, public = folder / _KEY, folder / _CERTIFICATE
        if not secret.exists():
            if public.exists() and not secret.exists():
                raise ConfigError(f"{public} exists without its key: remove it to create a new authority")
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = cls.create(name=name, days=days, key=key)
            # If another process was faster, `create_file` keeps its authority, and that one is loaded below.
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
        """Replace the authority stored in a directory by a new one.

        Clients have to trust the new `ca.pem`. The old certificate is kept as `ca-SERIAL.pem`, to identify it for
        removal from their trust stores; the old key is deleted.
        """
        old = cls.open(directory, name=name, days=days, key=key)
        folder = Path(directory)
        old.write_pem(folder / f"ca-{old.certificate.serial_number:x}.pem")
        fresh = cls.create(name=name, days=days, key=key)
        # The key file holds the certificate too, so key and certificate always match.
        replace_file(folder / _KEY, encode_key(fresh._key) + fresh.pem, 0o600)
        replace_file(folder / _CERTIFICATE, fresh.pem, 0o644)
        return fresh

    @property
    def pem(self) -> bytes:
        """The authority's certificate in PEM, for clients to trust."""
        return self._certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        """The certificate in DER, the format that Windows and Android import."""
        return self._certificate.public_bytes(Encoding.DER)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 fingerprint of the certificate, as browsers show it: `AB:CD:...`."""
        return self._certificate.fingerprint(hashes.SHA256()).hex(":").upper()

    def pkcs12(self, password: str | None = None, *, key: bool = False) -> bytes:
        """Export the certificate as PKCS#12, with `key=True` the private key too, to move the authority.

        Raises ConfigError for a private key without a password.
        """
        if key and not password:
            raise ConfigError("pkcs12(key=True) needs a password: the private key is exported encrypted only")
        lock = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        name = self._certificate.subject.rfc4514_string().encode()
        if key:
            return pkcs12.serialize_key_and_certificates(name, self._key, self._certificate, None, lock)
        return pkcs12.serialize_java_truststore([pkcs12.PKCS12Certificate(self._certificate, name)], lock)

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate, parsed."""
        return self._certificate

    def write_pem(self, path: str | os.PathLike[str]) -> Path:
        """Write `pem` to a file, replacing an existing one, and return its path."""
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
        """Issue a server certificate for host names, `*.` names and addresses, or a client certificate.

        The first name is also the subject. A client's name may be any text; one with an `@` is a mail address.
        The certificate expires no later than the authority. With `reuse_key` the certificates share one key of
        this authority, so that each costs only a signature. Raises ConfigError for an invalid name.
        """
        if not names:
            raise ConfigError("a certificate needs a name or an address")
        alternatives = [name for text in names if (name := general_name(text, client))]
        subject = str(names[0]) if client else str(alternatives[0].value)
        builder = set_validity(x509.CertificateBuilder(), days, self._certificate.not_valid_after_utc)
        return self._sign(builder, subject, alternatives, self._leaf_key(key, reuse_key), client)

    def mirror(self, certificate: x509.Certificate, *names: str) -> KeyPair:
        """Issue a certificate for these names and those of a server's certificate, with its validity period.

        Alternative names other than host names and addresses are left out, and so are names after the first
        hundred. The period is clipped: it begins at most 30 days ago and ends after at most 397 days and no later
        than the authority; in place of a period that does not include now, it is one day before and after now.
        The certificates share one key of this authority. Raises ConfigError if no name is left.
        """
        wanted = [found for text in names if (found := general_name(text, False))]
        alternatives = [*wanted, *(each for each in alternative_names(certificate) if each not in wanted)]
        if not alternatives:
            raise ConfigError("a certificate needs a name or an address")
        now = datetime.now(UTC)
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not start <= now < end:
            start, end = now - timedelta(days=1), now + timedelta(days=1)
        start = max(start, now - _MAX_BACKDATE)
        end = min(end, start + MAX_VALIDITY_DAYS, self._certificate.not_valid_after_utc)
        builder = set_validity_period(x509.CertificateBuilder(), start, end)
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
        fits = len(subject) <= MAX_COMMON_NAME
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
        # If two threads get here at once, both use the first key.
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
        """The intermediates that a server sends after its certificate; the root is left out, clients have it."""
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
            raise ConfigError(
                f"the certificate of {self} is not a CA certificate: expected basicConstraints CA:TRUE"
            )
        end = self._certificate.not_valid_after_utc
        if end <= datetime.now(UTC):
            raise ConfigError(f"the certificate of {self} expired on {end:%Y-%m-%d}")

    def __repr__(self) -> str:
        return f"CertificateAuthority({self._certificate.subject.rfc4514_string()!r})"


def _check_mode(secret: Path) -> None:
    """Reject a key file that other users can read. Windows has no mode bits: the directory's ACL applies."""
    mode = stat.S_IMODE(secret.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        raise ConfigError(f"other users can read the key in {secret} (mode {mode:04o}): chmod 600 {secret}")


def _load(secret: Path, public: Path) -> CertificateAuthority:
    data = secret.read_bytes()
    source = secret if b"BEGIN CERTIFICATE" in data else public
    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        raise ConfigError(f"the key in {secret} is encrypted: store it without a password") from None
    except ValueError as error:
        raise ConfigError(f"{secret}: expected a private key in PEM: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ConfigError(f"the key in {secret} has an unsupported type: expected EC or RSA")
    try:
        certificates = x509.load_pem_x509_certificates(source.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{secret} exists without its certificate, {public}") from None
    except ValueError as error:
        raise ConfigError(f"{source}: expected a certificate in PEM: {error}") from None
    try:
        return CertificateAuthority(certificates, key)
    except ConfigError as error:
        raise ConfigError(
            f"{source}: {error}; remove {secret} and {public} to create a new authority"
        ) from None
