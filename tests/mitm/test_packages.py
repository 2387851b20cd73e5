"""pip, npm and git fetch through the proxy that looks inside, behind both front doors."""

import base64
import hashlib
import io
import json
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from llama import http
from llama.http import Request, Response
from tests.mitm.test_peers import doors
from tests.mitm.worlds import HOST, World
from tests.tls.programs import needs, output_of

pytestmark = pytest.mark.peer


def wheel() -> bytes:
    """A package with nothing in it."""
    made = io.BytesIO()
    folder = "cloudy-1.0.dist-info"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(f"{folder}/METADATA", "Metadata-Version: 2.1\nName: cloudy\nVersion: 1.0\n")
        archive.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{folder}/RECORD", "")
    return made.getvalue()


def tarball() -> bytes:
    """The same for npm."""
    made = io.BytesIO()
    data = json.dumps({"name": "cloudy", "version": "1.0.0"}).encode()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        entry = tarfile.TarInfo("package/package.json")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return made.getvalue()


WHEEL, TARBALL = wheel(), tarball()


async def index(request: Request) -> Response:
    """The indexes of both, with one package."""
    match request.path:
        case "/simple/cloudy/":
            return Response(
                200, {"Content-Type": "text/html"}, '<a href="/cloudy-1.0-py3-none-any.whl">cloudy</a>'
            )
        case "/cloudy-1.0-py3-none-any.whl":
            return Response(200, {"Content-Type": "application/zip"}, WHEEL)
        case "/cloudy":
            digest = base64.b64encode(hashlib.sha512(TARBALL).digest()).decode()
            dist = {"tarball": f"https://{HOST}/cloudy-1.0.0.tgz", "integrity": f"sha512-{digest}"}
            version = {"name": "cloudy", "version": "1.0.0", "dist": dist}
            told = {"name": "cloudy", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
            return Response(200, {"Content-Type": "application/json"}, json.dumps(told))
        case "/cloudy-1.0.0.tgz":
            return Response(200, {"Content-Type": "application/octet-stream"}, TARBALL)
        case _:
            return Response(404)


async def test_pip(world: World, tmp_path: Path) -> None:
    pytest.importorskip("pip")
    async with doors(world, upstream=index) as (proxy, _):
        code, said = await output_of(
            "env", "-u", "NO_PROXY", "-u", "no_proxy", "-u", "PIP_CERT", f"REQUESTS_CA_BUNDLE={world.pem}",
            sys.executable, "-m", "pip", "--isolated", "--no-cache-dir", "--disable-pip-version-check",
            "download", "--no-deps", "--dest",
            str(tmp_path / "got"), "--proxy", proxy, "--index-url",
            f"https://{HOST}/simple", "--cert", str(world.pem), "cloudy",
        )  # fmt: skip
    assert code == 0, said
    assert (tmp_path / "got" / "cloudy-1.0-py3-none-any.whl").read_bytes() == WHEEL


@needs("npm")
async def test_npm(world: World, tmp_path: Path) -> None:
    async with doors(world, upstream=index) as proxies:
        for number, proxy in enumerate(proxies):
            folder = tmp_path / f"npm{number}"
            folder.mkdir()
            code, said = await output_of(
                "env", "-u", "NO_PROXY", "-u", "no_proxy", f"HOME={folder}", f"PATH={os.environ['PATH']}", "npm",
                "pack", "cloudy", f"--registry=https://{HOST}/", f"--https-proxy={proxy}", f"--proxy={proxy}",
                f"--cafile={world.pem}", "--noproxy=", f"--cache={folder / 'cache'}", "--no-audit",
                cwd=folder,
            )  # fmt: skip
            assert code == 0, said
            assert (folder / "cloudy-1.0.0.tgz").read_bytes() == TARBALL


@needs("git")
async def test_git(world: World, tmp_path: Path) -> None:
    where = tmp_path / "made"
    commands = (
        ("git", "init", "-q", str(where)),
        ("git", "-C", str(where), "-c", "user.name=a", "-c", "user.email=a@b.example", "commit", "-q",
         "--allow-empty", "-m", "first"),
        ("git", "clone", "-q", "--bare", str(where), str(tmp_path / "www" / "made.git")),
        ("git", "-C", str(tmp_path / "www" / "made.git"), "update-server-info"),
    )  # fmt: skip
    for command in commands:
        code, said = await output_of(*command)
        assert code == 0, said
    async with doors(world, upstream=http.static(tmp_path / "www")) as proxies:
        for number, proxy in enumerate(proxies):
            code, said = await output_of(
                "env", "-u", "NO_PROXY", "-u", "no_proxy", "GIT_TERMINAL_PROMPT=0", f"GIT_SSL_CAINFO={world.pem}",
                "git", "-c", f"http.proxy={proxy}", "clone", f"https://{HOST}/made.git",
                str(tmp_path / f"got{number}"),
            )  # fmt: skip
            assert code == 0, said
            code, said = await output_of("git", "-C", str(tmp_path / f"got{number}"), "log", "--format=%s")
            assert said.strip() == "first"
