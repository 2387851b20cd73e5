from tests.examples.conftest import Start
from tests.examples.helpers import client


def test_what_is_said_comes_back(example: Start) -> None:
    running = example("echo")
    with client(running.port(7007)) as sock:
        for word in (b"hello", b"again"):
            sock.sendall(word)
            assert sock.recv(100) == word
    running.stop()
