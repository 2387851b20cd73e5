"""The certificate authority: OpenSSL at its strictest accepts what it issues, and its key is guarded."""

import hashlib
import ipaddress
import os
import re
import ssl
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from llama._core.errors import ConfigError
from llama.tls._certificates.authority import CertificateAuthority
from llama.tls._certificates.key_pair import KeyPair

AUTHORITY = CertificateAuthority.create(name="test authority")


def leaf(pair: KeyPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.cert_pem)


def alternatives(pair: KeyPair) -> list[object]:
    extension = leaf(pair).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [name.value for name in extension.value]


def handshake(
    authority: CertificateAuthority,
    pair: KeyPair,
    name: str,
    folder: Path,
    client_pair: KeyPair | None = None,
) -> ssl.SSLObject:
    """A handshake in memory; gives the server's end. Raises ssl.SSLError where either side refuses."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(*pair.write(folder / "server"))
    asking = ssl.create_default_context(cadata=authority.pem.decode())
    asking.verify_flags |= ssl.VERIFY_X509_STRICT
    if client_pair is not None:
        serving.verify_mode = ssl.CERT_REQUIRED
        serving.verify_flags |= ssl.VERIFY_X509_STRICT
        serving.load_verify_locations(cadata=authority.pem.decode())
        asking.load_cert_chain(*client_pair.write(folder / "client"))
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(down, up, server_hostname=name)
    server = serving.wrap_bio(up, down, server_side=True)
    done = {client: False, server: False}
    while not all(done.values()):
        for end in done:
            try:
                end.do_handshake()
                done[end] = True
            except ssl.SSLWantReadError:
                pass
    return server


# What is issued


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_openssl_verifies_issued_certificates(kind: str, tmp_path: Path) -> None:
    pair = AUTHORITY.issue(
        "a.example", "*.b.example", "127.0.0.1", "::1", key="rsa" if kind == "rsa" else "ec"
    )
    for name in ("a.example", "x.b.example", "127.0.0.1", "::1"):
        handshake(AUTHORITY, pair, name, tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(AUTHORITY, pair, "b.example", tmp_path)


def test_an_authority_with_an_rsa_key_signs_too(tmp_path: Path) -> None:
    authority = CertificateAuthority.create(key="rsa")
    handshake(authority, authority.issue("a.example"), "a.example", tmp_path)


def test_another_authority_is_not_trusted(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(CertificateAuthority.create(), AUTHORITY.issue("a.example"), "a.example", tmp_path)


def test_a_client_certificate_verifies_for_clients(tmp_path: Path) -> None:
    john = AUTHORITY.issue("john", client=True)
    server = handshake(AUTHORITY, AUTHORITY.issue("a.example"), "a.example", tmp_path, john)
    peer = server.getpeercert()
    assert peer is not None
    assert peer["subject"] == ((("commonName", "john"),),)


def test_a_certificate_serves_one_purpose(tmp_path: Path) -> None:
    server, client = AUTHORITY.issue("a.example"), AUTHORITY.issue("a.example", client=True)
    with pytest.raises(ssl.SSLError, match="unsuitable certificate purpose"):
        handshake(AUTHORITY, client, "a.example", tmp_path)
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        handshake(AUTHORITY, server, "a.example", tmp_path, server)


def test_names_and_addresses_become_alternative_names() -> None:
    pair = AUTHORITY.issue("Bücher.example", "*.A.example", "127.0.0.1", ipaddress.ip_address("::1"))
    assert alternatives(pair) == [
        "xn--bcher-kva.example",
        "*.a.example",
        ipaddress.ip_address("127.0.0.1"),
        ipaddress.ip_address("::1"),
    ]
    assert leaf(pair).subject.rfc4514_string() == "CN=xn--bcher-kva.example"


def test_a_client_may_have_any_name() -> None:
    pair = AUTHORITY.issue("john smith", "john@a.example", "host.example", client=True)
    assert alternatives(pair) == ["john@a.example", "host.example"]
    assert leaf(pair).subject.rfc4514_string() == "CN=john smith"


def test_a_name_too_long_for_the_subject_is_only_an_alternative_name(tmp_path: Path) -> None:
    name = "a" * 60 + ".example"
    pair = AUTHORITY.issue(name)
    assert leaf(pair).subject.rfc4514_string() == ""
    assert leaf(pair).extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    handshake(AUTHORITY, pair, name, tmp_path)


def test_a_leaf_has_its_key_usages() -> None:
    for kind, exchange in (("ec", False), ("rsa", True)):
        found = leaf(AUTHORITY.issue("a.example", key="rsa" if kind == "rsa" else "ec")).extensions
        usage = found.get_extension_for_class(x509.KeyUsage)
        assert (usage.critical, usage.value.digital_signature, usage.value.key_encipherment) == (
            True,
            True,
            exchange,
        )
        assert not found.get_extension_for_class(x509.BasicConstraints).value.ca
        purposes = found.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH]
        own = AUTHORITY.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        issuer = found.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        assert issuer.key_identifier == own.digest


def test_a_certificate_is_valid_a_little_before_it_was_made_and_never_after_its_authority() -> None:
    now = datetime.now(UTC)
    short = CertificateAuthority.create(days=10)
    certificate = leaf(short.issue("a.example", days=5))
    assert certificate.not_valid_before_utc < now - timedelta(hours=1)
    assert abs(certificate.not_valid_after_utc - now - timedelta(days=5)) < timedelta(minutes=1)
    assert leaf(short.issue("a.example")).not_valid_after_utc == short.certificate.not_valid_after_utc


def test_serial_numbers_are_random_and_keys_are_shared_only_with_reuse_key() -> None:
    first, second = AUTHORITY.issue("a.example"), AUTHORITY.issue("a.example")
    assert leaf(first).serial_number != leaf(second).serial_number
    assert first.key_pem != second.key_pem
    shared = [AUTHORITY.issue(name, reuse_key=True) for name in ("a.example", "b.example")]
    assert shared[0].key_pem == shared[1].key_pem
    assert shared[0].cert_pem != shared[1].cert_pem
    assert AUTHORITY.issue("c.example", key="rsa", reuse_key=True).key_pem != shared[0].key_pem


@pytest.mark.parametrize("name", ["", "*", "a b", "a.*.example", "1.2.3", "a" * 64, "a.example:443"])
def test_an_invalid_name_is_rejected(name: str) -> None:
    with pytest.raises(ConfigError, match="is not a name pattern"):
        AUTHORITY.issue(name)


def test_invalid_arguments_are_rejected() -> None:
    with pytest.raises(ConfigError, match="needs a name or an address"):
        AUTHORITY.issue()
    with pytest.raises(ConfigError, match="days=0"):
        AUTHORITY.issue("a.example", days=0)
    with pytest.raises(ConfigError, match="the end date is out of range"):
        AUTHORITY.issue("a.example", days=1e9)
    with pytest.raises(ConfigError, match="expected 1 to 64 characters"):
        CertificateAuthority.create(name="")
    with pytest.raises(ConfigError, match="the client name is empty"):
        AUTHORITY.issue("", client=True)
    with pytest.raises(ConfigError, match="key='dsa': expected 'ec' or 'rsa'"):
        AUTHORITY.issue("a.example", key="dsa")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_repr_does_not_include_the_key() -> None:
    assert repr(AUTHORITY.issue("a.example")) == "KeyPair()"
    assert repr(AUTHORITY) == "CertificateAuthority('CN=test authority')"


# On disk


def test_a_written_key_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    pair = AUTHORITY.issue("a.example")
    old_mask = os.umask(0)
    try:
        certificate, key = pair.write(tmp_path / "new")
    finally:
        os.umask(old_mask)
    assert (certificate.read_bytes(), key.read_bytes()) == (pair.cert_pem, pair.key_pem)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert sorted(path.name for path in certificate.parent.iterdir()) == ["cert.pem", "key.pem"]
    again = AUTHORITY.issue("b.example")
    again.write(tmp_path / "new")
    assert key.read_bytes() == again.key_pem


def test_an_authority_is_created_once_and_found_again(tmp_path: Path) -> None:
    first = CertificateAuthority.open(tmp_path / "ca", name="mine")
    second = CertificateAuthority.open(tmp_path / "ca")
    assert first.pem == second.pem == (tmp_path / "ca" / "ca.pem").read_bytes()
    assert repr(second) == "CertificateAuthority('CN=mine')"
    assert stat.S_IMODE((tmp_path / "ca" / "ca.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "ca").stat().st_mode) == 0o700
    handshake(first, second.issue("a.example"), "a.example", tmp_path)


def test_concurrent_opens_get_the_same_authority(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(CertificateAuthority.open, tmp_path / "ca") for _ in range(8)]
        assert len({future.result().pem for future in found}) == 1
    assert sorted(path.name for path in (tmp_path / "ca").iterdir()) == ["ca.key", "ca.pem"]


def test_a_lost_certificate_is_written_again(tmp_path: Path) -> None:
    first = CertificateAuthority.open(tmp_path)
    (tmp_path / "ca.pem").unlink()
    assert CertificateAuthority.open(tmp_path).pem == first.pem == (tmp_path / "ca.pem").read_bytes()


def test_write_pem_writes_the_certificate_to_a_path(tmp_path: Path) -> None:
    assert AUTHORITY.write_pem(tmp_path / "trust.pem").read_bytes() == AUTHORITY.pem


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_readable_by_others_is_rejected_with_the_chmod_to_run(tmp_path: Path, mode: int) -> None:
    CertificateAuthority.open(tmp_path)
    secret = tmp_path / "ca.key"
    secret.chmod(mode)
    with pytest.raises(ConfigError, match=re.escape(f"(mode {mode:04o}): chmod 600 {secret}")):
        CertificateAuthority.open(tmp_path)


def test_key_and_certificate_may_be_two_files(tmp_path: Path) -> None:
    CertificateAuthority.open(tmp_path)
    secret = tmp_path / "ca.key"
    secret.write_bytes(secret.read_bytes().partition(b"-----BEGIN CERTIFICATE")[0])
    authority = CertificateAuthority.open(tmp_path)
    handshake(authority, authority.issue("a.example"), "a.example", tmp_path)


def test_an_intermediate_authority_is_included_in_the_chain(tmp_path: Path) -> None:
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = certificate("root", "root", root_key, root_key, ca=True)
    middle = certificate("middle", "root", key, root_key, ca=True)
    pair = CertificateAuthority([middle, root], key).issue("a.example")
    names = [own.subject.rfc4514_string() for own in x509.load_pem_x509_certificates(pair.cert_pem)]
    assert names == ["CN=a.example", "CN=middle"]
    trusted = CertificateAuthority([root], root_key)
    handshake(trusted, pair, "a.example", tmp_path)
    assert AUTHORITY.issue("a.example").cert_pem.count(b"BEGIN CERTIFICATE") == 1


def certificate(
    subject: str,
    issuer: str,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
    ended: bool = False,
) -> x509.Certificate:
    now = datetime.now(UTC)
    usage = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name.from_rfc4514_string(f"CN={subject}"))
        .issuer_name(x509.Name.from_rfc4514_string(f"CN={issuer}"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=-1 if ended else 1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .add_extension(
            x509.KeyUsage(**usage, key_cert_sign=ca, crl_sign=ca, encipher_only=False, decipher_only=False),
            critical=True,
        )
        .sign(signer, hashes.SHA256())
    )


def test_a_certificate_that_is_not_a_ca_is_rejected() -> None:
    key, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(ConfigError, match="is not a CA certificate"):
        CertificateAuthority([certificate("a", "a", key, key, ca=False)], key)
    with pytest.raises(ConfigError, match="key does not belong to the certificate"):
        CertificateAuthority([certificate("a", "a", key, key, ca=True)], other)
    with pytest.raises(ConfigError, match=r"of CertificateAuthority\('CN=a'\) expired on 20"):
        CertificateAuthority([certificate("a", "a", key, key, ca=True, ended=True)], key)


def key_pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, password: bytes = b"") -> bytes:
    how = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)


def test_invalid_authority_files_are_rejected(tmp_path: Path) -> None:
    secret, public = tmp_path / "ca.key", tmp_path / "ca.pem"
    key = ec.generate_private_key(ec.SECP256R1())

    def refusal() -> str:
        secret.chmod(0o600)
        with pytest.raises(ConfigError) as caught:
            CertificateAuthority.open(tmp_path)
        return str(caught.value)

    secret.write_bytes(b"nothing")
    assert f"{secret}: expected a private key in PEM" in refusal()
    secret.write_bytes(key_pem(key, b"password"))
    assert refusal() == f"the key in {secret} is encrypted: store it without a password"
    secret.write_bytes(key_pem(ed25519.Ed25519PrivateKey.generate()))
    assert refusal() == f"the key in {secret} has an unsupported type: expected EC or RSA"
    secret.write_bytes(key_pem(key))
    assert refusal() == f"{secret} exists without its certificate, {public}"
    public.write_bytes(b"nothing")
    assert f"{public}: expected a certificate in PEM" in refusal()
    public.write_bytes(certificate("a", "a", key, key, ca=True, ended=True).public_bytes(Encoding.PEM))
    assert f"remove {secret} and {public} to create a new authority" in refusal()


def test_a_certificate_without_its_key_is_left_alone(tmp_path: Path) -> None:
    public = AUTHORITY.write_pem(tmp_path / "ca.pem")
    with pytest.raises(ConfigError, match="exists without its key"):
        CertificateAuthority.open(tmp_path)
    assert public.read_bytes() == AUTHORITY.pem


def test_keys_have_the_requested_type() -> None:
    assert isinstance(load_pem_private_key(AUTHORITY.issue("a").key_pem, None), ec.EllipticCurvePrivateKey)
    key = load_pem_private_key(AUTHORITY.issue("a", key="rsa", reuse_key=True).key_pem, None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 2048


def test_the_certificate_is_exported_as_pem_der_and_pkcs12() -> None:
    ca = CertificateAuthority.create(name="forms")
    assert x509.load_der_x509_certificate(ca.der) == ca.certificate
    key, certificate, more = pkcs12.load_key_and_certificates(ca.pkcs12(), None)
    assert (key, certificate, more) == (None, None, [ca.certificate])
    key, certificate, more = pkcs12.load_key_and_certificates(ca.pkcs12("secret", key=True), b"secret")
    assert key is not None and certificate == ca.certificate and more == []
    with pytest.raises(ConfigError, match="needs a password"):
        ca.pkcs12(key=True)
    assert ca.fingerprint.replace(":", "").lower() == hashlib.sha256(ca.der).hexdigest()


def test_rotating_replaces_the_authority_and_keeps_the_old_certificate(tmp_path: Path) -> None:
    old = CertificateAuthority.open(tmp_path)
    fresh = CertificateAuthority.rotate(tmp_path)
    assert fresh.pem != old.pem
    assert CertificateAuthority.open(tmp_path).pem == fresh.pem == (tmp_path / "ca.pem").read_bytes()
    assert (tmp_path / f"ca-{old.certificate.serial_number:x}.pem").read_bytes() == old.pem
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600
    assert old.pem not in (tmp_path / "ca.key").read_bytes()
