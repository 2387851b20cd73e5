"""What a failed session says: one line of words in place of a library's error string."""

from __future__ import annotations

import re
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
_ALERT = re.compile(
    r"(?:SSLV3|TLSV1|TLSV13)_(?:ALERT_(\w+)"
    r"|(UNRECOGNIZED_NAME|UNSUPPORTED_EXTENSION|BAD_CERTIFICATE_\w+|CERTIFICATE_UNOBTAINABLE))"
)
_TEXT = re.compile(r"\[[^\]]*\] (.*?)(?: \(_ssl\.c:\d+\))?")


def tls_error(error: ssl.SSLError) -> TLSError:
    """A TLSError that says what went wrong in words; the library's own error is its cause."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return TLSError(f"the peer's certificate is not trusted: {error.verify_message}")
    if isinstance(error, ssl.SSLEOFError):
        return TLSError("the peer left without close_notify")
    reason = error.reason or _reason_in(str(error))
    if alert := _ALERT.fullmatch(reason):
        return TLSError(f"the peer sent the alert {(alert[1] or alert[2]).lower()}")
    return TLSError(_WORDS.get(reason, reason.replace("_", " ").lower()))


def _reason_in(text: str) -> str:
    """The reason in an error string; Python knows no name for those that are newer than itself."""
    found = _TEXT.fullmatch(text)
    return found[1].upper().replace(" ", "_") if found else text
