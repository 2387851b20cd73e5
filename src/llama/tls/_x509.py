"""The parts that certificates are put together from."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal, NamedTuple, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from llama._errors import ConfigError
from llama.tls._names import to_ascii, to_pattern

KeyKind: TypeAlias = Literal["ec", "rsa"]
"""ECDSA on P-256, or RSA with 2048 bits for clients that know nothing newer."""

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

LONGEST_COMMON_NAME = 64
LONGEST_LIFE = timedelta(days=397)  # browsers take no more of a server's certificate
MOST_NAMES = 100
_BACKDATED = timedelta(hours=24)  # clocks of clients that run late


_KEYS: dict[str, Callable[[], PrivateKey]] = {
    "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
    "rsa": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
}


class LeafKey(NamedTuple):
    """A key for what is issued, with what certificates say of it."""

    public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
    pem: bytes
    identifier: x509.SubjectKeyIdentifier
    usage: x509.KeyUsage

    @classmethod
    def make(cls, kind: KeyKind) -> "LeafKey":
        """A new one."""
        private = new_key(kind)
        public = private.public_key()
        # Clients of TLS 1.2 may encrypt a secret to an RSA key.
        usage = key_usage(digital_signature=True, key_encipherment=kind == "rsa")
        return cls(public, encode_key(private), x509.SubjectKeyIdentifier.from_public_key(public), usage)


def new_key(kind: KeyKind) -> PrivateKey:
    """A new private key."""
    make = _KEYS.get(kind)
    if make is None:
        raise ConfigError(f"key={kind!r}: keys are {' or '.join(map(repr, _KEYS))}")
    return make()


def encode_key(key: PrivateKey) -> bytes:
    """A key in PEM, without a password."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def dated(
    builder: x509.CertificateBuilder, days: float, latest: datetime | None = None
) -> x509.CertificateBuilder:
    """The same, valid for so many days from now, but not beyond the latest date."""
    if days <= 0:
        raise ConfigError(f"days={days}: a certificate has to be valid for some time")
    now = datetime.now(UTC)
    try:
        end = now + timedelta(days=days)
    except OverflowError:
        raise ConfigError(f"days={days}: there is no such date") from None
    return builder.not_valid_before(now - _BACKDATED).not_valid_after(min(end, latest or end))


def between(builder: x509.CertificateBuilder, start: datetime, end: datetime) -> x509.CertificateBuilder:
    """The same, valid in this span of time."""
    return builder.not_valid_before(start).not_valid_after(end)


def alternative_names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    """The host names and addresses that a certificate is for, a hundred at most."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return []
    fitting: list[x509.GeneralName] = [
        each for each in found if isinstance(each, x509.DNSName | x509.IPAddress)
    ]
    return fitting[:MOST_NAMES]


def key_usage(
    *,
    digital_signature: bool = False,
    key_encipherment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    """A key usage of what is named alone."""
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
    """The name as an alternative subject; None for a client's that has no such form."""
    if not isinstance(name, str):
        return x509.IPAddress(name)
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        pass
    if not client:
        return x509.DNSName(to_pattern(name))
    if not name:
        raise ConfigError("the name of a client is empty")
    try:
        return x509.RFC822Name(name) if "@" in name else x509.DNSName(to_ascii(name))
    except ValueError:
        return None
