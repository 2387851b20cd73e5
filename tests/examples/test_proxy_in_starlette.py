import urllib.request

import pytest

from tests.examples.conftest import Start
from tests.examples.helpers import service

pytest.importorskip("starlette")

PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"


def test_what_is_below_the_mount_comes_from_behind(example: Start) -> None:
    def tell(request: bytes) -> bytes:
        line = request.partition(b"\r\n")[0]
        return PAGE % (len(line), line)

    with service(tell) as port:
        running = example("proxy_in_starlette", {8000: port})
        address = f"http://127.0.0.1:{running.port(8080)}"
        assert fetch(f"{address}/") == b"at home\n"
        assert fetch(f"{address}/api/a%20b?c") == b"GET /a%20b?c HTTP/1.1"
        running.stop()


def fetch(url: str) -> bytes:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=20) as response:
        return bytes(response.read())
