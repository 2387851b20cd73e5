import base64

from tests.examples.conftest import Start
from tests.examples.helpers import client, read_all, service

AUTH = b"Proxy-Authorization: Basic " + base64.b64encode(b"john:secret") + b"\r\n"


def connect(target: bytes, *lines: bytes) -> bytes:
    return b"CONNECT %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n%b\r\n" % (
        target,
        target,
        b"".join(lines),
    )


def test_clients_with_a_password_reach_targets_through_the_second_proxy(example: Start) -> None:
    heard: list[bytes] = []

    def second(said: bytes) -> bytes:
        heard.append(said)
        return b"HTTP/1.1 200 OK\r\n\r\nhello through two proxies"

    with service(second) as port:
        running = example("http_proxy", {3128: port})
        for request, status in (
            (connect(b"a.example:443"), b"407"),
            (connect(b"mail.example:25", AUTH), b"403"),
            (connect(b"a.internal:443", AUTH), b"403"),
        ):
            with client(running.port(8080)) as sock:
                sock.sendall(request)
                assert read_all(sock).split()[1] == status
        with client(running.port(8080)) as sock:
            sock.sendall(connect(b"a.example:443", AUTH))
            assert read_all(sock) == b"HTTP/1.1 200 OK\r\n\r\nhello through two proxies"
        running.stop()
    assert heard == [b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n"]
