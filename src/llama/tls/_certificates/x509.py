"""Building blocks for certificates."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal, NamedTuple, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from llama._core.errors import ConfigError
from llama.tls._certificates.names import to_ascii, to_pattern

KeyKind: TypeAlias = Literal["ec", "rsa"]
"""A key type: ECDSA on P-256, or RSA with 2048 bits for clients without ECDSA."""

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

MAX_COMMON_NAME = 64
MAX_VALIDITY_DAYS = timedelta(days=397)  # the longest validity that browsers accept in a server certificate
MAX_NAMES = 100
_BACKDATED = timedelta(hours=24)  # for clients with slow clocks


_KEYS: dict[str, Callable[[], PrivateKey]] = {
    "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
    "rsa": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
}


class LeafKey(NamedTuple):
    """A key for issued certificates, with its identifier and key usage."""

    public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
    pem: bytes
    identifier: x509.SubjectKeyIdentifier
    usage: x509.KeyUsage

    @classmethod
    def make(cls, kind: KeyKind) -> "LeafKey":
        """Generate a key."""
        private = new_key(kind)
        public = private.public_key()
        # TLS 1.2 clients may use RSA key exchange.
        usage = key_usage(digital_signature=True, key_encipherment=kind == "rsa")
        return cls(public, encode_key(private), x509.SubjectKeyIdentifier.from_public_key(public), usage)


def new_key(kind: KeyKind) -> PrivateKey:
    """Generate a private key. Raises ConfigError for an unknown type."""
    make = _KEYS.get(kind)
    if make is None:
        raise ConfigError(f"key={kind!r}: expected {' or '.join(map(repr, _KEYS))}")
    return make()


def encode_key(key: PrivateKey) -> bytes:
    """Encode a key as unencrypted PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def set_validity(
    builder: x509.CertificateBuilder, days: float, latest: datetime | None = None
) -> x509.CertificateBuilder:
    """Set a validity of `days` from now, ending no later than `latest`. Raises ConfigError for invalid days."""
    if days <= 0:
        raise ConfigError(f"days={days}: expected more than 0")
    now = datetime.now(UTC)
    try:
        end = now + timedelta(days=days)
    except OverflowError:
        raise ConfigError(f"days={days}: the end date is out of range") from None
    return builder.not_valid_before(now - _BACKDATED).not_valid_after(min(end, latest or end))


def set_validity_period(
    builder: x509.CertificateBuilder, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    """Set the validity period."""
    return builder.not_valid_before(start).not_valid_after(end)


def alternative_names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    """Return the host names and addresses of a certificate, at most a hundred."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return []
    fitting: list[x509.GeneralName] = [
        each for each in found if isinstance(each, x509.DNSName | x509.IPAddress)
    ]
    return fitting[:MAX_NAMES]


def key_usage(
    *,
    digital_signature: bool = False,
    key_encipherment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    """Make a key usage extension with only the given usages."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


NO_AUTHORITY = x509.BasicConstraints(ca=False, path_length=None)
CLIENT_USAGE = key_usage(digital_signature=True)
CLIENT_AUTH = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
SERVER_AUTH = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])


def general_name(name: str | IPv4Address | IPv6Address, client: bool) -> x509.GeneralName | None:
    """Convert a name to a subject alternative name; None for a client's name that cannot be one."""
    if not isinstance(name, str):
        return x509.IPAddress(name)
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        pass
    if not client:
        return x509.DNSName(to_pattern(name))
    if not name:
        raise ConfigError("the client name is empty")
    try:
        return x509.RFC822Name(name) if "@" in name else x509.DNSName(to_ascii(name))
    except ValueError:
        return None
