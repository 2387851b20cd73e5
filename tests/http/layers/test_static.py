"""Static files."""

import asyncio
import os
from collections.abc import Mapping
from email.utils import formatdate
from pathlib import Path

import pytest

from llama import ConfigError, http, stack, testing
from llama.http import Request, Response
from llama.http._layers.static.files import READ_SIZE, FileBody
from tests.http.serving import last, talk

TEN = b"0123456789"
NOON = 1_700_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    (site / "docs").mkdir(parents=True)
    (site / "docs" / "index.html").write_bytes(b"<p>docs")
    (site / "empty").mkdir()
    (site / "ten.txt").write_bytes(TEN)
    (site / "ten.tar.gz").write_bytes(TEN)
    (site / "nothing").write_bytes(b"")
    (site / "j\xf6 %.css").write_bytes(b"p{}")
    (site / ".env").write_bytes(b"SECRET")
    os.utime(site / "ten.txt", (NOON, NOON))
    (tmp_path / "secret").write_bytes(b"SECRET")
    (tmp_path / "site-too").mkdir()
    (tmp_path / "site-too" / "secret").write_bytes(b"SECRET")
    return site


def ask(
    root: Path,
    path: str,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    *,
    dotfiles: bool = False,
) -> tuple[Response, bytes]:
    async def main() -> tuple[Response, bytes]:
        response = await http.static(root, dotfiles=dotfiles)(Request(method, path, headers or {}))
        try:
            return response, await response.body.read()
        finally:
            await response.aclose()

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("path", "body", "media"),
    [
        ("/ten.txt?x", TEN, "text/plain; charset=utf-8"),
        ("/ten.tar.gz", TEN, "application/gzip"),
        ("/nothing", b"", "application/octet-stream"),
        ("/docs/", b"<p>docs", "text/html; charset=utf-8"),
        ("/docs/index.html", b"<p>docs", "text/html; charset=utf-8"),
        ("/j%C3%B6%20%25.css", b"p{}", "text/css; charset=utf-8"),
    ],
)
def test_a_file_is_served_by_its_path(root: Path, path: str, body: bytes, media: str) -> None:
    response, got = ask(root, path)
    assert (response.status, got, response.headers["content-type"]) == (200, body, media)
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.body.length == len(body)


@pytest.mark.parametrize(
    "path",
    [
        "/", "/empty/", "/none", "/ten.txt/", "/ten.txt/x", "//ten.txt", "/docs//index.html",
        "/../secret", "/docs/../../secret", "/%2e%2e/secret", "/..%2fsecret", "/docs/..%5c..%5csecret",
        "/docs/../ten.txt", "/./ten.txt", "/../site-too/secret", "/.env", "/ten.txt%00", "/ten.txt%2f",
        "/" + "a" * 5000, "*", "", "/%ff",
    ],
)  # fmt: skip
def test_paths_that_name_no_served_file_are_404(root: Path, path: str) -> None:
    assert ask(root, path)[0].status == 404


def test_symlinks_are_followed_only_inside_the_directory(root: Path) -> None:
    (root / "in.txt").symlink_to("ten.txt")
    (root / "in").symlink_to("docs")
    (root / "out").symlink_to("../secret")
    (root / "outdir").symlink_to("../site-too")
    (root / "hidden").symlink_to(".env")
    (root / "loop").symlink_to("loop")
    (root / "absolute").symlink_to(root.parent / "secret")
    assert ask(root, "/in.txt")[1] == TEN
    assert ask(root, "/in/")[1] == b"<p>docs"
    for path in ("/out", "/outdir", "/outdir/", "/outdir/secret", "/hidden", "/loop", "/absolute"):
        assert ask(root, path)[0].status == 404, path


def test_a_fifo_does_not_block(root: Path) -> None:
    os.mkfifo(root / "pipe")
    assert ask(root, "/pipe")[0].status == 404


def test_dotfiles_are_served_if_enabled(root: Path) -> None:
    assert ask(root, "/.env", dotfiles=True)[1] == b"SECRET"
    assert ask(root, "/..", dotfiles=True)[0].status == 404
    assert ask(root, "/docs/../ten.txt", dotfiles=True)[0].status == 404


def test_a_hidden_name_is_refused_whatever_it_links_to(root: Path) -> None:
    (root / ".link").symlink_to("ten.txt")
    assert ask(root, "/.link")[0].status == 404


def test_a_backslash_is_refused_though_a_file_has_that_name(root: Path) -> None:
    (root / "a\\b").write_bytes(TEN)
    assert ask(root, "/a%5cb")[0].status == 404


def test_a_directory_redirects_to_its_slash_below_any_prefix(root: Path) -> None:
    response, _ = ask(root, "/docs?a=b")
    assert (response.status, response.headers["location"]) == (308, "./docs/?a=b")


@pytest.mark.parametrize(
    ("wanted", "status", "body"),
    [
        ("bytes=0-3", 206, b"0123"),
        ("bytes=8-", 206, b"89"),
        ("bytes=-3", 206, b"789"),
        ("bytes=-99", 206, TEN),
        ("Bytes=9-99", 206, b"9"),
        ("bytes=10-", 416, b""),
        ("bytes=-0", 416, b""),
        ("bytes=3-1", 200, TEN),
        ("bytes=0-1,4-5", 200, TEN),
        ("bytes=-", 200, TEN),
        ("bytes=a-b", 200, TEN),
        ("lines=0-1", 200, TEN),
        ("bytes=" + "9" * 30 + "-", 200, TEN),
    ],
)
def test_a_single_range_is_served(root: Path, wanted: str, status: int, body: bytes) -> None:
    response, got = ask(root, "/ten.txt", {"Range": wanted})
    assert response.status == status
    if status == 416:
        assert response.headers["content-range"] == "bytes */10"
        return
    assert got == body
    if status == 206:
        start = TEN.index(body)
        assert response.headers["content-range"] == f"bytes {start}-{start + len(body) - 1}/10"


def test_if_range_requires_the_same_version(root: Path) -> None:
    tag = ask(root, "/ten.txt")[0].headers["etag"]
    for same in (tag, formatdate(NOON, usegmt=True)):
        assert ask(root, "/ten.txt", {"Range": "bytes=0-1", "If-Range": same})[0].status == 206
    for other in (f"W/{tag}", '"x"', formatdate(NOON + 1, usegmt=True)):
        assert ask(root, "/ten.txt", {"Range": "bytes=0-1", "If-Range": other})[1] == TEN


def test_a_fresh_copy_of_the_client_gets_304(root: Path) -> None:
    first, _ = ask(root, "/ten.txt")
    tag, modified = first.headers["etag"], first.headers["last-modified"]
    assert modified == formatdate(NOON, usegmt=True)
    fresh: list[dict[str, str]] = [
        {"If-None-Match": tag},
        {"If-None-Match": f'"a", W/{tag}', "Range": "bytes=0-1"},
        {"If-None-Match": "*"},
        {"If-Modified-Since": modified},
    ]
    for headers in fresh:
        response, body = ask(root, "/ten.txt", headers)
        assert (response.status, body, response.headers["etag"]) == (304, b"", tag)
    stale: list[dict[str, str]] = [
        {"If-None-Match": '"a"', "If-Modified-Since": modified},
        {"If-Modified-Since": formatdate(NOON - 1, usegmt=True)},
        {"If-Modified-Since": "yesterday"},
    ]
    for headers in stale:
        assert ask(root, "/ten.txt", headers)[1] == TEN


def test_a_failed_precondition_is_412(root: Path) -> None:
    tag = ask(root, "/ten.txt")[0].headers["etag"]
    before = formatdate(NOON - 1, usegmt=True)
    for holds in ({"If-Match": tag}, {"If-Match": "*"}, {"If-Match": tag, "If-Unmodified-Since": before}):
        assert ask(root, "/ten.txt", holds)[0].status == 200
    for fails in ({"If-Match": '"a"'}, {"If-Match": f"W/{tag}"}, {"If-Unmodified-Since": before}):
        assert ask(root, "/ten.txt", fails)[0].status == 412


def test_a_changed_file_has_a_new_etag(root: Path) -> None:
    before = ask(root, "/ten.txt")[0].headers["etag"]
    (root / "ten.txt").write_bytes(TEN)
    assert ask(root, "/ten.txt")[0].headers["etag"] != before


def test_methods_other_than_get_and_head_are_405(root: Path) -> None:
    response, _ = ask(root, "/ten.txt", method="POST")
    assert (response.status, response.headers["allow"]) == (405, "GET, HEAD")
    handler = stack(http.server(), http.static(root))
    answer = talk(handler, last("/ten.txt", method="HEAD"))
    assert b"Content-Length: 10\r\n" in answer and answer.endswith(b"\r\n\r\n")
    assert talk(handler, last("/ten.txt")).endswith(b"\r\n\r\n" + TEN)


def test_a_large_file_is_sent_in_chunks_and_a_truncated_one_aborts(root: Path) -> None:
    large = root / "large"
    large.write_bytes(b"x" * (2 * READ_SIZE + 1))

    async def main() -> None:
        response = await http.static(root)(Request("GET", "/large"))
        assert len(await response.body.read_chunk()) == READ_SIZE
        os.truncate(large, READ_SIZE + 5)
        assert [len(await response.body.read_chunk()) for _ in range(3)] == [5, 0, 0]
        await response.aclose()

    asyncio.run(main())


def test_closing_a_body_closes_its_file(root: Path) -> None:
    async def main() -> None:
        response = await http.static(root)(Request("GET", "/ten.txt"))
        body = response.body
        assert isinstance(body, FileBody)
        await response.aclose()
        assert body._file.closed
        assert await body.read_chunk() == b""
        await response.aclose()

    asyncio.run(main())


def test_an_invalid_directory_is_rejected_when_static_is_built(root: Path) -> None:
    for wrong in (root / "none", root / "ten.txt"):
        with pytest.raises(ConfigError):
            http.static(wrong)
    for name in ("", "a/b", ".."):
        with pytest.raises(ConfigError, match="index"):
            http.static(root, index=name)


# listing


def listed(root: Path, path: str, method: str = "GET", *, dotfiles: bool = False) -> tuple[Response, str]:
    async def main() -> tuple[Response, str]:
        async with testing.client(http.static(root, listing=True, dotfiles=dotfiles)) as client:
            response = await client.request(method, path)
            return response, (await response.body.read()).decode()

    return asyncio.run(main())


def test_a_file_that_is_replaced_by_a_symlink_is_not_followed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def swap(path: str | Path, flags: int, *more: int) -> int:
        if Path(path).name == "ten.txt":
            Path(path).unlink()
            Path(path).symlink_to(root.parent / "secret")
        return real(path, flags, *more)

    monkeypatch.setattr(os, "open", swap)
    response, body = ask(root, "/ten.txt")
    assert response.status == 404 and b"SECRET" not in body


def test_a_directory_without_an_index_can_be_listed(root: Path) -> None:
    (root / "a<b>&\u202e.txt").write_bytes(b"")
    (root / "x:y").mkdir()
    (root / "out").symlink_to(root.parent / "secret")
    (root / "in").symlink_to(root / "docs")
    response, page = listed(root, "/")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert [line for line in page.splitlines() if line.startswith("<li>")] == [
        '<li><a href="./docs/">docs/</a></li>',
        '<li><a href="./empty/">empty/</a></li>',
        '<li><a href="./in/">in/</a></li>',
        '<li><a href="./x%3Ay/">x:y/</a></li>',
        '<li><a href="./a%3Cb%3E%26%E2%80%AE.txt">a&lt;b&gt;&amp;\ufffd.txt</a></li>',
        '<li><a href="./j%C3%B6%20%25.css">j\xf6 %.css</a></li>',
        '<li><a href="./nothing">nothing</a></li>',
        '<li><a href="./ten.tar.gz">ten.tar.gz</a></li>',
        '<li><a href="./ten.txt">ten.txt</a></li>',
    ]
    assert ".env" in listed(root, "/", dotfiles=True)[1]
    assert '<a href="../">' in listed(root, "/empty/")[1]
    assert listed(root, "/docs/")[1] == "<p>docs"
    assert listed(root, "/empty")[0].headers["location"] == "./empty/"
    response, page = listed(root, "/empty/", "HEAD")
    assert (int(response.headers["content-length"]) > 100, page) == (True, "")
    assert listed(root, "/missing/")[0].status == 404


def test_directories_are_not_listed_by_default(root: Path) -> None:
    assert ask(root, "/empty/")[0].status == 404
    assert ask(root, "/")[0].status == 404
