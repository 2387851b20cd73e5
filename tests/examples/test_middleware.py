import socket

from tests.examples.conftest import Start
from tests.examples.helpers import client, read_all


def test_the_layer_speaks_before_and_after_the_echo(example: Start) -> None:
    running = example("middleware")
    with client(running.port(7007)) as sock:
        sock.sendall(b"hello\n")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"say something\nhello\ngoodbye\n"
    running.stop()
