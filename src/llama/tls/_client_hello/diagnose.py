"""Describes the first bytes of a connection that are not a ClientHello, in one line for the log."""

_ALERT, _CLIENT_HELLO, _MAJOR = 21, 1, 3

_HTTP = (
    b"GET /",
    b"POST ",
    b"HEAD ",
    b"PUT /",
    b"OPTIO",
    b"CONNE",
    b"DELET",
    b"PATCH",
    b"TRACE",
    b"QUERY",
    b"PROPF",
    b"LOCK ",
    b"COPY ",
    b"MOVE ",
    b"MKCOL",
    b"REPOR",
)
_STARTS = (
    *((start, "a plain HTTP request on a TLS port") for start in _HTTP),
    (b"GET h", "a plain HTTP request to a proxy on a TLS port"),
    (b"PRI *", "plain HTTP/2 on a TLS port"),
    (b"PROXY", "a PROXY protocol header where TLS was expected"),
    (b"\r\n\r\n\0", "a PROXY protocol header where TLS was expected"),
    (b"SSH-2", "an SSH client on a TLS port"),
)
_VERSIONS = {
    b"\x00\x02": "SSL 2.0",
    b"\x03\x00": "SSL 3.0",
    b"\x03\x01": "TLS 1.0",
    b"\x03\x02": "TLS 1.1",
    b"\x03\x03": "TLS 1.2",
}
_RECORDS = {
    20: "a change_cipher_spec record",
    21: "an alert",
    23: "an application_data record",
    24: "a heartbeat",
}
_MESSAGES = {
    0: "hello_request",
    2: "server_hello",
    4: "new_session_ticket",
    8: "encrypted_extensions",
    11: "certificate",
    14: "server_hello_done",
    16: "client_key_exchange",
    20: "finished",
}
_LEVELS = {1: "warning", 2: "fatal"}
_ALERTS = {
    0: "close_notify",
    10: "unexpected_message",
    40: "handshake_failure",
    42: "bad_certificate",
    46: "certificate_unknown",
    48: "unknown_ca",
    50: "decode_error",
    70: "protocol_version",
    80: "internal_error",
    90: "user_canceled",
    112: "unrecognized_name",
}


def describe_start(head: bytes) -> str:
    """Describe first bytes that are not a handshake record. Five bytes are enough; an alert needs seven."""
    if head[1] == _MAJOR and head[0] in _RECORDS:
        return f"{_RECORDS[head[0]]}{_alert(head)} where a ClientHello was expected"
    if head[0] & 0x80 and head[2] == _CLIENT_HELLO and head[3:5] in _VERSIONS:
        return f"an SSLv2 hello, which offers {_VERSIONS[head[3:5]]}"
    for start, reason in _STARTS:
        if head.startswith(start):
            return reason
    return f"not TLS: first bytes 0x{head[:5].hex()}"


def http_method(head: bytes) -> bytes:
    """Return the method of a plain HTTP/1 request, cut off after five bytes; empty for anything else."""
    return head[:5].partition(b" ")[0] if head.startswith((*_HTTP, b"GET h")) else b""


def describe_record(kind: int) -> str:
    """Describe a record that arrived before the ClientHello was complete, by its type."""
    return f"{_RECORDS.get(kind, f'a record of type {kind}')} inside a ClientHello"


def describe_message(kind: int) -> str:
    """Describe a handshake message that arrived in place of a ClientHello, by its type."""
    name = _MESSAGES.get(kind, "unknown")
    return f"a handshake message of type {kind} ({name}) where a ClientHello was expected"


def _alert(head: bytes) -> str:
    if head[0] != _ALERT or len(head) < 7:
        return ""
    level, description = head[5], head[6]
    return f" ({_LEVELS.get(level, level)}, {_ALERTS.get(description, description)})"
