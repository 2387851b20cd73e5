"""Error messages for failed sessions: one readable line in place of OpenSSL's error string."""

from __future__ import annotations

import re
import ssl

from llama._core.errors import TLSError

_DESCRIPTIONS = {
    "NO_SHARED_CIPHER": "the client offers none of the enabled cipher suites",
    "UNSUPPORTED_PROTOCOL": "the peer offers none of the enabled TLS versions",
    "VERSION_TOO_LOW": "the peer offers none of the enabled TLS versions",
    "WRONG_VERSION_NUMBER": "the peer does not speak TLS, or none of the enabled versions",
    "HTTP_REQUEST": "a plain HTTP request on a TLS port",
    "HTTPS_PROXY_REQUEST": "a plain HTTP CONNECT on a TLS port",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client sent no certificate, and one is required",
    "UNEXPECTED_EOF_WHILE_READING": "the peer closed the connection without close_notify",
    "APPLICATION_DATA_AFTER_CLOSE_NOTIFY": "the peer sent data after its close_notify",
    "NO_SUITABLE_KEY_SHARE": "the client offers none of the enabled key exchange groups",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "the client supports no signature algorithm of this certificate",
    "DECRYPTION_FAILED_OR_BAD_RECORD_MAC": "a record failed authentication",
    "RECORD_LAYER_FAILURE": "a record failed authentication or is malformed",
    "LENGTH_MISMATCH": "a handshake message is malformed",
}
_ALERT = re.compile(
    r"(?:SSLV3|TLSV1|TLSV13)_(?:ALERT_(\w+)"
    r"|(UNRECOGNIZED_NAME|UNSUPPORTED_EXTENSION|BAD_CERTIFICATE_\w+|CERTIFICATE_UNOBTAINABLE))"
)
_TEXT = re.compile(r"\[[^\]]*\] (.*?)(?: \(_ssl\.c:\d+\))?")


def tls_error(error: ssl.SSLError) -> TLSError:
    """Convert an ssl.SSLError into a TLSError with a readable message."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return TLSError(f"the peer's certificate is not trusted: {error.verify_message}")
    if isinstance(error, ssl.SSLEOFError):
        return TLSError("the peer closed the connection without close_notify")
    reason = error.reason or _reason_in(str(error))
    if alert := _ALERT.fullmatch(reason):
        return TLSError(f"the peer sent the alert {(alert[1] or alert[2]).lower()}")
    return TLSError(_DESCRIPTIONS.get(reason, reason.replace("_", " ").lower()))


def _reason_in(text: str) -> str:
    """Extract the reason from an error string: `reason` is empty for codes newer than this Python."""
    found = _TEXT.fullmatch(text)
    return found[1].upper().replace(" ", "_") if found else text
