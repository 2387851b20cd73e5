"""What a failed session says: one line of words in place of a library's error string."""

from __future__ import annotations

import ssl

from llama._errors import TLSError

_WORDS = {
    "NO_SHARED_CIPHER": "the client offers no cipher suite that is allowed here",
    "UNSUPPORTED_PROTOCOL": "the peer offers no TLS version that is allowed here",
    "VERSION_TOO_LOW": "the peer offers no TLS version that is allowed here",
    "WRONG_VERSION_NUMBER": "the peer does not speak TLS, or no version that is allowed here",
    "HTTP_REQUEST": "a plain HTTP request on a TLS port",
    "HTTPS_PROXY_REQUEST": "a plain HTTP CONNECT on a TLS port",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client sent no certificate, and one is required",
    "UNEXPECTED_EOF_WHILE_READING": "the peer left without close_notify",
    "APPLICATION_DATA_AFTER_CLOSE_NOTIFY": "the peer sent data after its close_notify",
    "NO_SUITABLE_KEY_SHARE": "the client offers no key exchange group that is allowed here",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "the client accepts no signature that this certificate can make",
    "DECRYPTION_FAILED_OR_BAD_RECORD_MAC": "a record is not authentic",
    "RECORD_LAYER_FAILURE": "a record is not authentic or malformed",
    "LENGTH_MISMATCH": "a handshake message is malformed",
}


def tls_error(error: ssl.SSLError) -> TLSError:
    """A TLSError that says what went wrong in words; the library's own error is its cause."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return TLSError(f"the peer's certificate is not trusted: {error.verify_message}")
    if isinstance(error, ssl.SSLEOFError):
        return TLSError("the peer left without close_notify")
    reason = error.reason or str(error)
    _, alert, name = reason.partition("ALERT_")
    if alert:
        return TLSError(f"the peer sent the alert {name.lower()}")
    return TLSError(_WORDS.get(reason, reason.replace("_", " ").lower()))
