from tests.examples.conftest import Start
from tests.examples.helpers import client, read_all


def test_a_request_is_answered_by_a_function(example: Start) -> None:
    running = example("http_hello")
    with client(running.port(8080)) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\njohn")
        heard = read_all(sock)
    assert heard.endswith(b"\r\n\r\nhello john\n")
    assert b"\r\nCache-Control: no-store\r\n" in heard
    assert b"\r\nX-Request-ID: " in heard
    running.stop()
