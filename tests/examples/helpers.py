"""Plain blocking peers for the examples: what a client or a service would do without llama."""

import socket
import ssl
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 20.0


@contextmanager
def service(answer: Callable[[bytes], bytes]) -> Generator[int]:
    """A service that reads once, answers and closes, until the block ends; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, answer))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listener: socket.socket, answer: Callable[[bytes], bytes]) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with client:
            client.sendall(answer(client.recv(65536)))


@contextmanager
def client(port: int) -> Generator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        yield sock


@contextmanager
def tls_client(
    port: int, ca: Path, name: str = "localhost", certificate: tuple[Path, Path] | None = None
) -> Generator[ssl.SSLSocket]:
    context = ssl.create_default_context(cafile=str(ca))
    if certificate is not None:
        context.load_cert_chain(*certificate)
    with client(port) as sock, context.wrap_socket(sock, server_hostname=name) as session:
        yield session


def read_all(sock: socket.socket) -> bytes:
    found = b""
    while data := sock.recv(65536):
        found += data
    return found
