from pathlib import Path

from tests.examples.conftest import Start
from tests.examples.helpers import client, read_all


def test_files_and_an_api_are_served_with_all_that_is_around(example: Start, tmp_path: Path) -> None:
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "index.html").write_text("<p>welcome" * 200)
    running = example("http_layers")

    def get(path: str, *lines: str) -> bytes:
        head = "\r\n".join([f"GET {path} HTTP/1.1", "Host: a", "Connection: close", *lines, "", ""])
        with client(running.port(8080)) as sock:
            sock.sendall(head.encode())
            return read_all(sock)

    page = get("/", "Accept-Encoding: gzip")
    assert b"Content-Encoding: gzip\r\n" in page
    assert b"X-Frame-Options: DENY\r\n" in page
    assert get("/api/users/john", "Cookie: session=1").endswith(b"\r\n\r\nhello john, this is mary\n")
    assert get("/api/users/john").startswith(b"HTTP/1.1 403 ")
    assert get("/api/other", "Cookie: session=1").startswith(b"HTTP/1.1 404 ")
    assert get("/../secret").startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 "))
    running.stop()
