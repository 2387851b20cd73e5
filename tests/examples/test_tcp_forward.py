from tests.examples.conftest import Start
from tests.examples.helpers import client, read_all, service

HEADER = b"\r\n\r\n\0\r\nQUIT\n\x21\x11"  # version 2, PROXY, TCP over IPv4


def test_the_service_hears_whose_bytes_they_are(example: Start) -> None:
    with service(lambda said: said) as port:
        running = example("tcp_forward", {5432: port})
        with client(running.port(8432)) as sock:
            sock.sendall(b"hello")
            heard = read_all(sock)
        assert heard.startswith(HEADER)
        assert heard[16:20] == bytes([127, 0, 0, 1])
        running.stop()
