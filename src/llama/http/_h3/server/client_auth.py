"""Client certificates of an HTTP/3 server: the request, the chain, and the signature (RFC 8446 section 4.4)."""

from __future__ import annotations

import ssl
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from qh3._hazmat import Buffer, BufferReadError
from qh3.tls import Alert, AlertDescription, pull_certificate, pull_certificate_verify

from llama._core.errors import ConfigError
from llama.tls._certificates.files import CertificateEntry

CERTIFICATE, CERTIFICATE_REQUEST, CERTIFICATE_VERIFY = 11, 13, 15
SIGNATURE_ALGORITHMS = 13
MAX_CERTIFICATE_MESSAGE = 100 * 1024  # bytes; the default of OpenSSL
CONTEXT = b"TLS 1.3, client CertificateVerify"
_ECDSA: dict[int, tuple[type[ec.EllipticCurve], HashAlgorithm]] = {
    0x0403: (ec.SECP256R1, SHA256()), 0x0503: (ec.SECP384R1, SHA384()), 0x0603: (ec.SECP521R1, SHA512()),
}  # fmt: skip
_RSA_PSS: dict[int, HashAlgorithm] = {0x0804: SHA256(), 0x0805: SHA384(), 0x0806: SHA512()}
_ED25519 = 0x0807
_RSA_PKCS1 = (0x0401, 0x0501, 0x0601)  # for signatures in certificates only
_TLS12_RECORD = 16384


class PeerCertificate(NamedTuple):
    """A client certificate whose chain was verified."""

    der: bytes
    info: dict[str, Any]
    """As `ssl.SSLSocket.getpeercert` returns it."""


def alert(description: int, reason: str) -> Alert:
    """An error that closes the connection with a TLS alert."""
    error = Alert(reason)
    error.description = cast("AlertDescription", description)
    return error


class ClientVerifier:
    """Verifies client certificates with OpenSSL and the policy of `tls.server`.

    The `ssl` module verifies chains only within handshakes. A TLS 1.2 server verifies the chain as soon as it has
    read the client's Certificate message, which is not encrypted. So each chain goes through the start of such a
    handshake in memory, and the result is the same as over TCP: trust anchors, purposes, times, and alerts.
    """

    def __init__(self, site: CertificateEntry) -> None:
        """Raises ConfigError for files that do not work."""
        self._context = site.load()
        self._context.maximum_version = ssl.TLSVersion.TLSv1_2
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.set_alpn_protocols([])
        self.is_required = self._context.verify_mode == ssl.CERT_REQUIRED
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        received, self._hello = ssl.MemoryBIO(), b""
        sent = ssl.MemoryBIO()
        try:
            _advance(client.wrap_bio(received, sent))
            self._hello = sent.read()
            self._begin()
        except ssl.SSLError as error:
            raise ConfigError(
                f"{site.certificate!r}: client certificates cannot be verified: {error}"
            ) from error

    def _begin(self) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
        """A server that expects the Certificate message."""
        received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = self._context.wrap_bio(received, sent, server_side=True)
        received.write(self._hello)
        _advance(server)
        sent.read()
        return server, received, sent

    def verify(self, chain: Sequence[bytes]) -> PeerCertificate:
        """Verify a chain in DER, the leaf first; raises `Alert`."""
        server, received, sent = self._begin()
        body = b"".join(_sized(each) for each in chain)
        message = bytes([CERTIFICATE]) + _sized(_sized(body))
        for start in range(0, len(message), _TLS12_RECORD):
            part = message[start : start + _TLS12_RECORD]
            received.write(struct.pack("!BHH", 22, 0x0303, len(part)) + part)
        try:
            _advance(server)
        except ssl.SSLError as error:
            refusal = sent.read()
            description = refusal[-1] if refusal[:1] == b"\x15" else AlertDescription.bad_certificate
            reason = getattr(error, "verify_message", None) or error.reason or "it cannot be read"
            raise alert(description, f"client certificate rejected: {reason}") from error
        # The public method, new in Python 3.13, returns the certificates without their details.
        verified: list[Any] = cast("Any", server)._sslobj.get_verified_chain() or []
        if not verified or ssl.PEM_cert_to_DER_cert(verified[0].public_bytes()) != chain[0]:
            raise alert(AlertDescription.bad_certificate, "client certificate rejected: it was not verified")
        return PeerCertificate(chain[0], cast("dict[str, Any]", verified[0].get_info()))


def _advance(session: ssl.SSLObject) -> None:
    """Process what has arrived; the handshake never completes."""
    try:
        session.do_handshake()
    except ssl.SSLWantReadError:
        return
    raise ssl.SSLError("the handshake in memory has completed")


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(3, "big") + data


def certificate_request() -> bytes:
    """The CertificateRequest message of a handshake (RFC 8446 section 4.3.2)."""
    schemes = (*_ECDSA, *_RSA_PSS, _ED25519, *_RSA_PKCS1)
    listed = struct.pack(f"!H{len(schemes)}H", 2 * len(schemes), *schemes)
    extension = struct.pack("!HH", SIGNATURE_ALGORITHMS, len(listed)) + listed
    body = b"\0" + struct.pack("!H", len(extension)) + extension
    return bytes([CERTIFICATE_REQUEST]) + _sized(body)


class ClientAuthentication:
    """The client's Certificate and CertificateVerify messages of one handshake."""

    def __init__(self, verifier: ClientVerifier) -> None:
        self._verifier = verifier
        self._chain: list[bytes] | None = None
        self.certificate: PeerCertificate | None = None
        """The certificate of the client, verified."""
        self.is_complete = False
        """Whether the client may finish the handshake."""

    def receive(self, message: bytes, signed: bytes) -> None:
        """Take one message. `signed` is what a CertificateVerify must sign. Raises `Alert`."""
        expected = CERTIFICATE if self._chain is None else CERTIFICATE_VERIFY
        if self.is_complete or message[0] != expected:
            raise alert(AlertDescription.unexpected_message, "expected the client's certificate")
        try:
            if self._chain is None:
                self._receive_certificate(message)
            else:
                self._receive_verify(message, self._chain, signed)
        except (BufferReadError, ValueError) as error:
            raise alert(AlertDescription.decode_error, f"malformed message: {error}") from error

    def _receive_certificate(self, message: bytes) -> None:
        buffer = Buffer(data=message)
        received = pull_certificate(buffer)
        if not buffer.eof():
            raise alert(AlertDescription.decode_error, "extra bytes at the end of a handshake message")
        if received.request_context:
            raise alert(AlertDescription.illegal_parameter, "certificate_request_context is not empty")
        self._chain = [der for der, _ in received.certificates]
        if not self._chain:
            if self._verifier.is_required:
                raise alert(AlertDescription.certificate_required, "the client sent no certificate")
            self.is_complete = True

    def _receive_verify(self, message: bytes, chain: list[bytes], signed: bytes) -> None:
        buffer = Buffer(data=message)
        received = pull_certificate_verify(buffer)
        if not buffer.eof():
            raise alert(AlertDescription.decode_error, "extra bytes at the end of a handshake message")
        certificate = self._verifier.verify(chain)
        _verify_signature(chain[0], received.algorithm, received.signature, signed)
        self.certificate = certificate
        self.is_complete = True


def _verify_signature(der: bytes, scheme: int, signature: bytes, signed: bytes) -> None:
    key = x509.load_der_x509_certificate(der).public_key()
    try:
        if isinstance(key, ec.EllipticCurvePublicKey) and scheme in _ECDSA:
            curve, digest = _ECDSA[scheme]
            if isinstance(key.curve, curve):
                key.verify(signature, signed, ec.ECDSA(digest))
                return
        elif isinstance(key, rsa.RSAPublicKey) and scheme in _RSA_PSS:
            digest = _RSA_PSS[scheme]
            key.verify(signature, signed, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
            return
        elif isinstance(key, ed25519.Ed25519PublicKey) and scheme == _ED25519:
            key.verify(signature, signed)
            return
    except InvalidSignature:
        raise alert(AlertDescription.decrypt_error, "the client's signature is not valid") from None
    raise alert(
        AlertDescription.illegal_parameter, f"signature scheme {scheme:#06x} was not offered for this key"
    )
