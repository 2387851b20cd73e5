"""Certificate files: what is read, what is refused, and in which words."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from llama import ConfigError, tls
from llama.tls import Certificate, CertificateAuthority, KeyPair
from tests.tls.clients import client_of, echo, trusting
from tests.tls.forged import copied
from tests.tls.sessions import authority, ca_file, pair_files

FORMATS = [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL]


def encrypted(place: Path, password: str, form: PrivateFormat) -> tuple[str, Path]:
    """The certificate for localhost, and its key behind a password."""
    cert, plain = pair_files("localhost")
    key = load_pem_private_key(Path(plain).read_bytes(), None)
    path = place / "secret.key"
    path.write_bytes(key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(password.encode())))
    return cert, path


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("password", ["open sesame", lambda: "open sesame"], ids=["text", "function"])
async def test_a_password_decrypts_the_key(
    tmp_path: Path, form: PrivateFormat, password: str | Callable[[], str]
) -> None:
    layer = tls.server(*encrypted(tmp_path, "open sesame", form), password=password)
    async with client_of(layer(echo)) as client:
        assert await client.ask(b"hi") == b"hi"


@pytest.mark.parametrize("form", FORMATS)
def test_a_wrong_password_is_reported(tmp_path: Path, form: PrivateFormat) -> None:
    cert, key = encrypted(tmp_path, "open sesame", form)
    for wrong in ("sesame", "x", "something else"):
        with pytest.raises(ConfigError, match=r"secret\.key: wrong password for the key"):
            tls.server(cert, key, password=wrong)


@pytest.mark.parametrize("form", FORMATS)
def test_a_missing_password_is_reported_without_a_prompt(tmp_path: Path, form: PrivateFormat) -> None:
    cert, key = encrypted(tmp_path, "open sesame", form)
    program = f"from llama import tls; tls.server({str(cert)!r}, {str(key)!r})"
    done = subprocess.run(
        [sys.executable, "-c", program],
        input="open sesame\n",
        capture_output=True,
        text=True,
        timeout=30,
        start_new_session=True,
        check=False,
    )
    assert "secret.key: the key is encrypted: give its password" in done.stderr
    assert "pass phrase" not in done.stderr + done.stdout


async def test_a_combined_file_needs_no_key_file(tmp_path: Path) -> None:
    cert, key = map(Path, pair_files("localhost"))
    for name, parts in (("cert-first", (cert, key)), ("key-first", (key, cert))):
        combined = tmp_path / f"{name}.pem"
        combined.write_bytes(b"".join(part.read_bytes() for part in parts))
        async with client_of(tls.server(combined)(echo)) as client:
            assert client.names == {"localhost"}


async def test_the_whole_chain_is_sent(tmp_path: Path) -> None:
    """A client that knows only the root finds its way over what lies between."""
    root, between = chain(tmp_path)
    cert, key = between.issue("localhost").write(tmp_path)
    async with client_of(tls.server(cert, key)(echo), trusting(ca=root)) as client:
        assert await client.ask(b"hi") == b"hi"


def chain(place: Path) -> tuple[str, CertificateAuthority]:
    """A root's file, and an authority that the root has signed."""
    root = CertificateAuthority.create(name="root")
    between = CertificateAuthority.create(name="between")
    any_length = x509.BasicConstraints(ca=True, path_length=None)
    kept = [each for each in root.certificate.extensions if each.oid != any_length.oid]
    top = copied(root.certificate, root, [*kept, x509.Extension(any_length.oid, True, any_length)])
    below = copied(between.certificate, root)
    (place / "root.pem").write_bytes(top.public_bytes(Encoding.PEM))
    return str(place / "root.pem"), CertificateAuthority([below], between._key)


def test_a_key_of_another_certificate_is_reported(tmp_path: Path) -> None:
    (cert, _), (_, key) = pair_files("localhost"), pair_files("other.example")
    with pytest.raises(ConfigError, match=r"key\.pem: the key does not match the certificate in .*cert\.pem"):
        tls.server(cert, key)


def test_missing_files_are_named(tmp_path: Path) -> None:
    cert, key = pair_files("localhost")
    for paths in ((tmp_path / "none.pem", key), (cert, tmp_path / "none.pem"), (tmp_path / "none.pem", None)):
        with pytest.raises(ConfigError, match=r"none\.pem: no such file"):
            tls.server(*paths)
    with pytest.raises(ConfigError, match=r"none\.pem: .*No such file"):
        tls.server(cert, key, client_ca=tmp_path / "none.pem")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x30\x82\x01\x00" + bytes(256)], ids=len)
def test_a_file_that_is_not_pem_is_reported(tmp_path: Path, content: bytes) -> None:
    (junk := tmp_path / "junk.pem").write_bytes(content)
    cert, key = pair_files("localhost")
    for paths in ((junk, key), (junk, None)):
        with pytest.raises(ConfigError, match=r"junk\.pem: expected a certificate in PEM"):
            tls.server(*paths)
    with pytest.raises(ConfigError, match=r"junk\.pem: expected a private key in PEM"):
        tls.server(cert, junk)
    with pytest.raises(ConfigError, match=r"junk\.pem: expected certificates in PEM"):
        tls.server(cert, key, client_ca=junk)


def test_a_certificate_without_its_key_is_reported() -> None:
    cert, _ = pair_files("localhost")
    with pytest.raises(ConfigError, match=r"cert\.pem: expected a private key in PEM"):
        tls.server(cert)


def test_a_directory_as_certificate_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        tls.server(tmp_path)


def test_invalid_settings_are_rejected_at_once() -> None:
    files = pair_files("localhost")
    with pytest.raises(ConfigError, match=r"minimum_version='TLSv1\.4': expected one of TLSv1, "):
        tls.server(*files, minimum_version="TLSv1.4")
    with pytest.raises(ConfigError, match="client_auth='required' needs client_ca"):
        tls.server(*files, client_auth="required", alpn=["h2"])
    with pytest.raises(ConfigError, match="client_auth='maybe': expected none, optional or required"):
        tls.server(*files, client_ca=ca_file(), client_auth="maybe")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="key needs"):
        tls.server(Certificate(*files), files[1])  # type: ignore[call-overload, unused-ignore]
    with pytest.raises(ConfigError, match=r"'a\.\*\.example' is not a name pattern"):
        tls.server(Certificate(*files, names=["a.*.example"]))
    with pytest.raises(ConfigError, match=r"both serve 'a\.example'"):
        tls.server(Certificate(*files, names=["a.example"]), None, Certificate(*files, names=["A.example."]))


async def test_names_that_cannot_be_a_server_name_are_left_out(tmp_path: Path) -> None:
    odd = Certificate(*with_names(tmp_path, "*", "a.*.example", "10.0.0.1", "good.example"))
    layer = tls.server(Certificate(*pair_files("localhost")), None, odd)
    async with client_of(layer(echo), name="good.example") as client:
        assert "good.example" in client.names


def with_names(place: Path, *names: str) -> tuple[Path, Path]:
    """Certificate and key files for names that the authority would not take."""
    made = authority().issue("localhost")
    old = x509.load_pem_x509_certificate(made.cert_pem)
    san = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    leaf = copied(old, authority(), [x509.Extension(san.oid, False, san)])
    return KeyPair(leaf.public_bytes(Encoding.PEM), made.key_pem).write(place)
