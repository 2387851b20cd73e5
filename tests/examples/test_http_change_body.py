from tests.examples.conftest import Start
from tests.examples.helpers import client


def test_a_body_is_changed_as_it_streams_by(example: Start) -> None:
    running = example("http_change_body")
    with client(running.port(8080)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        heard = b""
        while not heard.endswith(b"0\r\n\r\n"):
            heard += sock.recv(65536)
    body = b"".join(heard.partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2])
    assert body == b"a llama, seen by llama"
    running.stop()
