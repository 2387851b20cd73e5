"""`secure_origin.py PORT CERT KEY`: answers every HTTP/1.1 request without a body by the same kilobyte, over TLS.

A thread for each connection; it ends when its standard input does.
"""

import contextlib
import os
import socket
import ssl
import sys
import threading

BODY = b"x" * 1024
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Type: text/plain\r\nETag: \"6740c1a2-400\"\r\n"
    b"Content-Length: 1024\r\n\r\n" + BODY
)  # fmt: skip


def serve(sock: socket.socket, context: ssl.SSLContext) -> None:
    """One connection."""
    with contextlib.suppress(OSError), context.wrap_socket(sock, server_side=True) as session:
        session.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        got = b""
        while data := session.recv(65536):
            got += data
            while b"\r\n\r\n" in got:
                got = got.partition(b"\r\n\r\n")[2]
                session.sendall(ANSWER)


def accept(port: int, context: ssl.SSLContext) -> None:
    """All connections."""
    with socket.create_server(("127.0.0.1", port), backlog=1024) as listener:
        print("ready", flush=True)
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=serve, args=(sock, context), daemon=True).start()


if __name__ == "__main__":
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(sys.argv[2], sys.argv[3])
    threading.Thread(target=accept, args=(int(sys.argv[1]), made), daemon=True).start()
    sys.stdin.read()
    os._exit(0)
