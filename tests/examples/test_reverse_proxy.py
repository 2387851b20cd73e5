import re

from tests.examples.conftest import Start
from tests.examples.helpers import client, read_all, service

GET = b"GET /a HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-For: 203.0.113.9\r\nConnection: close\r\n\r\n"


def answer(heard: bytes) -> bytes:
    forwarded = re.findall(rb"X-Forwarded-For: (.*)\r\n", heard)[0]
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(forwarded), forwarded)


def test_an_upstream_answers_though_the_other_is_not_there(example: Start) -> None:
    with service(answer) as upstream:
        running = example("reverse_proxy", {8001: 1, 8002: upstream})
        for _ in range(3):
            with client(running.port(8080)) as sock:
                sock.sendall(GET)
                heard = read_all(sock)
            assert heard.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"\r\nX-Request-ID: " in heard and heard.endswith(b"\r\n\r\n203.0.113.9, 127.0.0.1")
        running.stop()
