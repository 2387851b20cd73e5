"""`pango serve --check`: what would run, or everything that is wrong."""

import datetime as dt
import re
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from llama.tls import CertificateAuthority
from tests.pango.conftest import Call, Start, write_pair

TLS = "serve --check --cert c.pem --key k.pem --to 127.0.0.1:8080 "


def lines(text: str) -> list[str]:
    """The lines with dates made the same."""
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC, \d+ days", "DATE", text).splitlines()


def test_it_says_what_would_run(pango: Call, files: Path) -> None:
    done = pango(TLS + "--listen :8443 --max-connections 10000 --workers 2")
    assert done.code == 0
    assert lines(done.output) == [
        "stack        tcp.connection_limit(10000) > tls.server(c.pem) > tcp.forward(127.0.0.1:8080)",
        "listen       :8443 (every address)",
        "to           127.0.0.1:8080",
        "certificate  c.pem: localhost, 127.0.0.1; valid until DATE",
        "timeouts     handshake 10s, connect 10s, idle 10m, grace off",
        "workers      2, 10000 connections each",
    ]


def test_it_says_what_would_run_with_all_of_it(
    pango: Call, files: Path, authority: CertificateAuthority
) -> None:
    write_pair(authority, files, "b.pem", "b.key", "*.b.example")
    done = pango(
        TLS + "--cert b.pem --key b.key --listen 8443 --listen unix:p.sock --client-ca ca.pem --alpn h2 "
        "--tls-min 1.3 --to tls://app.example:443 --to-ca ca.pem --to unix:app.sock --proxy-protocol "
        "--proxy-protocol-from 10.0.0.0/8 --idle-timeout off --grace 1m"
    )
    assert done.errors == ""
    stack, *rest = lines(done.output)
    assert "round_robin(127.0.0.1:8080, tls://app.example:443, unix:app.sock)" in stack
    assert rest == [
        "listen       localhost:8443",
        "listen       unix:p.sock",
        "to           127.0.0.1:8080",
        "to           tls://app.example:443 (verified by ca.pem)",
        "to           unix:app.sock",
        "clients      need a certificate from ca.pem",
        "clients      PROXY header expected from 10.0.0.0/8",
        "certificate  c.pem: localhost, 127.0.0.1; valid until DATE",
        "certificate  b.pem: *.b.example; valid until DATE",
        "timeouts     handshake 10s, connect 10s, idle off, grace 1m",
        "workers      this process alone, no limit",
    ]


def test_it_says_which_targets_it_speaks_http_to(pango: Call, files: Path) -> None:
    done = pango(
        "serve --check --cert c.pem --key k.pem --to https://app.example --to http+unix:app.sock "
        "--forwarded-from 10.0.0.0/8 --response-header-timeout 30s --access-log json"
    )
    assert done.errors == ""
    stack, *rest = lines(done.output)
    assert " > http.forwarded() > http.access_log('json') > http.reverse_proxy(" in stack
    assert rest == [
        "listen       localhost:8443",
        "to           https://app.example (verified by the system's authorities)",
        "to           http+unix:app.sock",
        "clients      by X-Forwarded-* of proxies in 10.0.0.0/8",
        "certificate  c.pem: localhost, 127.0.0.1; valid until DATE",
        "timeouts     handshake 10s, connect 10s, answer 30s, idle 10m, grace off",
        "workers      this process alone, no limit",
    ]


def test_a_plain_proxy_has_no_tls(pango: Call) -> None:
    done = pango("serve --check --plain --to 127.0.0.1:8080")
    assert done.code == 0
    assert lines(done.output) == [
        "stack        tcp.forward(127.0.0.1:8080)",
        "listen       localhost:8443",
        "to           127.0.0.1:8080",
        "timeouts     connect 10s, idle 10m, grace off",
        "workers      this process alone, no limit",
    ]


def test_every_error_is_said_at_once(pango: Call, files: Path) -> None:
    done = pango(
        "serve --check --listen [::1 --cert c.pem --key missing.pem --to 127.0.0.1 --to-insecure --workers 0 "
        "--idle-timeout 5x --proxy-protocol 3 --proxy-protocol-from 10.0.0.1/8 --log-format xml --tls-min 1.1"
    )
    assert (done.code, done.output) == (78, "")
    networks = "expected networks such as 10.0.0.0/8 or 2001:db8::/32"
    addresses = "expected HOST:PORT, [IPV6]:PORT, :PORT, PORT, unix:PATH or fd:NUMBER"
    expected = (
        "pango: --log-format: 'xml' is not known: expected text or json",
        "pango: --proxy-protocol: '3' is not known: expected 1 or 2",
        f"pango: --proxy-protocol-from: '10.0.0.1/8' is an address within 10.0.0.0/8: {networks}",
        f"pango: --listen: '[::1' is no address to listen on: {addresses}",
        "pango: --tls-min: '1.1' is not known: expected 1.2 or 1.3",
        "pango: --to: '127.0.0.1' is no target: expected HOST:PORT, tls://HOST:PORT, unix:PATH, http://HOST:PORT or https://HOST:PORT",
        "pango: --idle-timeout: '5x' is no length of time: expected one above 0 such as 10, 500ms, 5m or off",
        "pango: --workers: '0' is no count: expected a whole number from 1 up",
        "pango: --to-insecure: goes with --to tls://HOST:PORT, https://HOST:PORT and h3://HOST:PORT only",
        "pango: --key: missing.pem: no such file or directory",
    )
    assert done.errors.splitlines() == list(expected)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("--to a:1", "--cert: missing: expected a PEM file, or --plain for no TLS"),
        (
            "--plain",
            "--to: missing: expected HOST:PORT, tls://HOST:PORT, unix:PATH, http://HOST:PORT or https://HOST:PORT",
        ),
        (
            "--plain --to a:1 --cert c.pem --key k.pem",
            "--cert: does not go with --plain, which terminates no TLS",
        ),
        (
            "--plain --to a:1 --client-ca ca.pem",
            "--client-ca: does not go with --plain, which terminates no TLS",
        ),
        ("--plain --to a:1 --listen :1 --listen :1", "--listen: ':1' is given twice"),
        ("--plain --to tls://a:1 --to-key k.pem", "--to-key: goes with --to-cert only"),
        (
            "--plain --to tls://a:1 --keylog missing/keys",
            "--keylog: missing/keys: cannot write the key log: No such file or directory",
        ),
        (
            "--plain --to a:1 --keylog keys",
            "--keylog: with --plain, expected targets that are reached over TLS",
        ),
        (
            "--plain --to tls://a:1 --keylog env",
            "--keylog: 'env' names no file: expected FILE, or env with SSLKEYLOGFILE set",
        ),
        ("--plain --to tls://a:1 --to-cert missing.pem", "--to-cert: missing.pem: no such file or directory"),
        (
            "--plain --to a:1 --to-cert c.pem --to-key k.pem",
            "--to-cert: goes with --to tls://HOST:PORT, https://HOST:PORT and h3://HOST:PORT only",
        ),
        (
            "--plain --to tls://a:1 --to-ca ca.pem --to-insecure",
            "--to-insecure: does not go with --to-ca, which verifies",
        ),
        (
            "--plain --to http://a --to b:1",
            "--to: 'b:1' is not HTTP as others are: expected all of them to be, or none",
        ),
        (
            "--plain --to http://a --proxy-protocol",
            "--proxy-protocol: does not go with --to http://, which is told by X-Forwarded-For",
        ),
        (
            "--plain --to a:1 --access-log",
            "--access-log: goes with --to http://HOST:PORT and https://HOST:PORT only",
        ),
        (
            "--plain --to http://a --retries -1",
            "--retries: '-1' is no count: expected a whole number from 0 up",
        ),
        (
            "--plain --to http://a --access-log loud",
            "--access-log: 'loud' is not known: expected common, combined or json",
        ),
        (
            "--plain --to http://a:1:2",
            "--to: 'a:1:2' is not an address of the form HOST:PORT: write an IPv6 address in brackets, as [::1]:443",
        ),
        (
            "--to a:1 --cert c.pem --cert c.pem --key k.pem",
            "--key: 1 for 2 certificates: expected one --key for each --cert, or none",
        ),
        ("--to a:1 --cert k.pem --key k.pem", "--cert: k.pem: holds no certificate: expected PEM"),
        ("--to a:1 --cert c.pem", "--cert: c.pem: holds no private key: expected PEM"),
        ("--to a:1 --cert . --key k.pem", "--cert: .: is a directory"),
        (
            "--to a:1 --cert c.pem --key k.pem --client-ca k.pem",
            "--client-ca: k.pem: holds no certificate: expected PEM",
        ),
        (
            "--to a:1 --cert c.pem --key k.pem --key-password-file x",
            "--key-password-file: x: no such file or directory",
        ),
    ],
)
def test_what_does_not_go_together(pango: Call, files: Path, options: str, error: str) -> None:
    done = pango(f"serve --check {options}")
    assert (done.code, done.output) == (78, "")
    assert done.errors.splitlines() == [f"pango: {error}"]


def test_a_key_of_another_certificate_is_refused(
    pango: Call, files: Path, authority: CertificateAuthority
) -> None:
    write_pair(authority, files, "other.pem", "other.key", "other.example")
    done = pango("serve --check --to a:1 --cert c.pem --key other.key")
    assert done.code == 78
    assert done.errors == ("pango: --key: other.key: this key does not belong to the certificate in c.pem\n")


def test_one_file_may_hold_both(pango: Call, files: Path) -> None:
    (files / "both.pem").write_bytes((files / "k.pem").read_bytes() + (files / "c.pem").read_bytes())
    assert pango("serve --check --to a:1 --cert both.pem").code == 0


def encrypt(file: Path, password: bytes, style: PrivateFormat) -> None:
    key = load_pem_private_key(file.read_bytes(), None)
    file.write_bytes(key.private_bytes(Encoding.PEM, style, BestAvailableEncryption(password)))


@pytest.mark.parametrize("style", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_key_needs_its_password(pango: Call, files: Path, style: PrivateFormat) -> None:
    encrypt(files / "k.pem", b"secret", style)
    (files / "right").write_text("secret\n")
    (files / "wrong").write_text("guess\n")
    assert pango(TLS).errors == "pango: --key: k.pem: the encrypted key needs a password\n"
    assert pango(TLS + "--key-password-file right").code == 0
    assert pango(TLS + "--key-password-file wrong").errors == (
        "pango: --key: k.pem: the encrypted key is not opened by the password\n"
    )


def write_dated(folder: Path, begins: int, ends: int, alternative: str = "old.example") -> None:
    """A certificate with its key in dated.pem, valid between these days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "old.example")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now + dt.timedelta(days=begins))
        .not_valid_after(now + dt.timedelta(days=ends))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(alternative)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "dated.pem").write_bytes(private + certificate.public_bytes(Encoding.PEM))


@pytest.mark.parametrize(
    ("begins", "ends", "words"),
    [
        (-90, -1, "EXPIRED on "),
        (1, 90, "NOT VALID before "),
        (-80, 10, "EXPIRES SOON"),
        (-1, 90, ", 89 days"),
    ],
)
def test_a_certificates_dates_are_told(pango: Call, files: Path, begins: int, ends: int, words: str) -> None:
    write_dated(files, begins, ends)
    done = pango("serve --check --to a:1 --cert dated.pem")
    assert done.code == 0
    line = next(line for line in done.output.splitlines() if line.startswith("certificate"))
    assert line.startswith("certificate  dated.pem: old.example; ")
    assert words in line


@pytest.mark.parametrize(("ends", "warnings"), [(10, 1), (90, 0)])
def test_a_certificate_that_ends_soon_is_a_warning_at_the_start(
    proxy: Start, files: Path, ends: int, warnings: int
) -> None:
    write_dated(files, -1, ends)
    server = proxy("--cert", "dated.pem", "--to", "127.0.0.1:1")
    server.stop()
    assert len(server.complaints()) == warnings
    assert all("certificate dated.pem: old.example" in each for each in server.complaints())


@pytest.mark.parametrize("name", ["127.0.0.1", "*", "a.*.example", "my host"])
def test_a_certificate_may_hold_names_that_no_client_asks_for(pango: Call, files: Path, name: str) -> None:
    write_dated(files, -1, 90, name)
    done = pango("serve --check --to a:1 --cert dated.pem")
    assert done.code == 0
    assert f"certificate  dated.pem: {name}; " in done.output
