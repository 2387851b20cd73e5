"""Programs that fetch, through the forward proxy: wget, git, pip, apt, npm, netcat, openssl."""

import base64
import hashlib
import importlib.util
import io
import json
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from llama import Stream, Target, serve, tcp
from llama.http import Request, Response
from tests.http.peers import DATA, SITE, Gate, gate, program, site, sites
from tests.socks5.worlds import echo
from tests.tls.sessions import ca_file

pytestmark = pytest.mark.peer
schemes = pytest.mark.parametrize("scheme", ["http", "https"])


def came_through(gate: Gate, scheme: str) -> bool:
    """Whether all that was asked for went the way of its scheme."""
    start = f"CONNECT {SITE}:443" if scheme == "https" else "GET http://"
    return bool(gate.seen) and all(each.startswith(start) for each in gate.seen)


# wget


@schemes
async def test_wget(scheme: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    begun = tmp_path / "begun"
    begun.write_bytes(DATA[:1000])
    async with sites(files=tmp_path) as roads, gate(roads, user=("john", "secret")) as proxy:
        trust = ("-q", "--no-hsts", "--tries=1", f"--ca-certificate={ca_file()}")
        options = (*trust, "--proxy-user=john", "--proxy-password=secret")
        variables = {f"{scheme}_proxy": proxy.url}
        page, file = f"{scheme}://{SITE}/hello", f"{scheme}://{SITE}/files/file"
        done = await program("wget", *options, "-O-", page, page, variables=variables)
        assert done.out == b"hello" * 2, done.err
        done = await program("wget", *options, "-c", "-O", begun, file, variables=variables)
        assert begun.read_bytes() == DATA, done.err
        assert came_through(proxy, scheme)
        done = await program("wget", "--no-hsts", "--tries=1", "-O-", page, variables=variables)
        assert b"Proxy Authentication Required" in done.err


# git

IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "john"), ("EMAIL", "john@a.example"))
}


class Git:
    """git with no settings but these."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.folder = folder
        self.settings = [part for each in settings for part in ("-c", each)]

    async def __call__(self, *arguments: str | Path, folder: Path | None = None) -> bytes:
        settings = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "HOME": str(self.folder)}
        where = folder or self.folder
        done = await program(
            "git", *self.settings, *arguments, folder=where, variables={**IDENTITY, **settings}
        )
        assert done.code == 0, done.err
        return done.out


async def repository(folder: Path) -> Git:
    """`repository.git` with a commit, in a folder."""
    git = Git(folder, "init.defaultBranch=main")
    await git("init", "-q", "work")
    (folder / "work/file").write_bytes(os.urandom(200_000))
    await git("add", "file", folder=folder / "work")
    await git("commit", "-qm", "first", folder=folder / "work")
    await git("clone", "-q", "--bare", "work", "repository.git")
    await git("update-server-info", folder=folder / "repository.git")
    return git


@schemes
async def test_git_clones_files(scheme: str, tmp_path: Path) -> None:
    await repository(tmp_path)
    async with sites(files=tmp_path) as roads, gate(roads) as proxy:
        git = Git(tmp_path, f"http.proxy={proxy.url}", f"http.sslCAInfo={ca_file()}")
        await git("clone", "-q", f"{scheme}://{SITE}/files/repository.git", "copy")
        assert came_through(proxy, scheme)
    assert (tmp_path / "copy/file").read_bytes() == (tmp_path / "work/file").read_bytes()


class Backend:
    """git's own server, by CGI."""

    def __init__(self, root: Path) -> None:
        self.root = root

    async def __call__(self, request: Request) -> Response:
        path, _, query = request.path.partition("?")
        variables = {
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": request.headers.get("git-protocol", ""),
            "REMOTE_USER": "john",
            "REQUEST_METHOD": request.method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": request.headers.get("content-type", ""),
            "HTTP_CONTENT_ENCODING": request.headers.get("content-encoding", ""),
        }
        body = await request.body.read(1 << 24)
        done = await program("git", "http-backend", stdin=body, variables=variables)
        head, _, data = done.out.partition(b"\r\n\r\n")
        fields = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n")]
        return Response(200, [(name, value) for name, value in fields if name != "Status"], data)


@schemes
async def test_git_clones_and_pushes(scheme: str, tmp_path: Path) -> None:
    await repository(tmp_path)
    async with sites(Backend(tmp_path)) as roads, gate(roads, user=("john", "secret")) as proxy:
        way = proxy.url.replace("//", "//john:secret@")
        small = "http.postBuffer=65536"  # what is larger goes up in chunks
        git = Git(tmp_path, f"http.proxy={way}", f"http.sslCAInfo={ca_file()}", small)
        await git("clone", "-q", f"{scheme}://{SITE}/repository.git", "copy")
        copy = tmp_path / "copy"
        (copy / "more").write_bytes(os.urandom(300_000))
        await git("add", "more", folder=copy)
        await git("commit", "-qm", "second", folder=copy)
        await git("push", "-q", folder=copy)
        assert any(each.startswith("CONNECT" if scheme == "https" else "POST") for each in proxy.seen)
        there = await git("log", "--format=%s", "main", folder=tmp_path / "repository.git")
        assert there == b"second\nfirst\n"


# pip


def wheel(folder: Path) -> Path:
    """A package of one line."""
    path = folder / "peer_llama-1.0-py3-none-any.whl"
    about = "peer_llama-1.0.dist-info"
    files = {
        "peer_llama.py": "WOOL = 'soft'\n",
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: peer-llama\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{about}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**files, f"{about}/RECORD": record}.items():
            archive.writestr(name, content)
    return path


@schemes
async def test_pip(scheme: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        pytest.skip("pip is not installed")
    package = wheel(tmp_path)
    index = tmp_path / "simple/peer-llama/index.html"
    index.parent.mkdir(parents=True)
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    index.write_text(f'<!doctype html><a href="../../{package.name}#sha256={digest}">{package.name}</a>')
    async with sites(files=tmp_path) as roads, gate(roads, user=("john", "secret")) as proxy:
        way = proxy.url.replace("//", "//john:secret@")
        source = ("--index-url", f"{scheme}://{SITE}/files/simple/", "--trusted-host", SITE)
        if scheme == "https":
            source = (*source[:2], "--cert", ca_file())
        options = ("--isolated", "--disable-pip-version-check", "--no-cache-dir", "--retries", "0")
        done = await program(
            sys.executable,
            *("-m", "pip", "install", *options, "--no-compile", "--proxy", way, *source),
            *("--target", tmp_path / "installed", "peer-llama"),
            variables={"PIP_CONFIG_FILE": os.devnull},
        )
        assert done.code == 0, done.err
        assert came_through(proxy, scheme)
    assert (tmp_path / "installed/peer_llama.py").read_text() == "WOOL = 'soft'\n"


# apt


async def debian(folder: Path) -> None:
    """A flat repository with a package of one file."""
    control = "Package: peer-llama\nVersion: 1.0\nArchitecture: all\nMaintainer: john <john@a.example>\n"
    control += "Description: a llama\n"
    tree = folder / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN").chmod(0o755)
    (tree / "DEBIAN/control").write_text(control)
    (tree / "llama").write_text("soft\n")
    package = folder / "peer-llama_1.0_all.deb"
    done = await program("dpkg-deb", "--root-owner-group", "--build", tree, package)
    assert done.code == 0, done.err
    data = package.read_bytes()
    facts = f"Filename: files/{package.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
    (folder / "Packages").write_text(control + facts)


@schemes
async def test_apt(scheme: str, tmp_path: Path) -> None:
    shown, own = tmp_path / "shown", tmp_path / "own"
    for each in (shown, own / "lists/partial", own / "cache/archives/partial", own / "etc"):
        each.mkdir(parents=True)
    await debian(shown)
    (own / "status").touch()
    (own / "settings").touch()
    (own / "sources").write_text(f"deb [trusted=yes] {scheme}://{SITE}/ files/\n")
    async with sites(files=shown) as roads, gate(roads, user=("john", "secret")) as proxy:
        settings = {
            "Dir::Etc": own / "etc",
            "Dir::Etc::SourceList": own / "sources",
            "Dir::Etc::SourceParts": own / "etc",
            "Dir::State": own,
            "Dir::State::Lists": own / "lists",
            "Dir::State::Status": own / "status",
            "Dir::Cache": own / "cache",
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "Acquire::Retries": "0",
            f"Acquire::{scheme}::Proxy": proxy.url.replace("//", "//john:secret@"),
            "Acquire::https::CAInfo": ca_file(),
        }
        options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
        variables = {"APT_CONFIG": own / "settings"}
        done = await program("apt-get", *options, "update", variables=variables)
        assert done.code == 0, done.err
        done = await program(
            "apt-get", *options, "download", "peer-llama", folder=tmp_path, variables=variables
        )
        assert done.code == 0, done.err
        assert came_through(proxy, scheme)
    name = "peer-llama_1.0_all.deb"
    assert (tmp_path / name).read_bytes() == (shown / name).read_bytes()


# npm


def tarball(folder: Path) -> Path:
    """A package of one line."""
    path = folder / "peer-llama-1.0.0.tgz"
    about = json.dumps({"name": "peer-llama", "version": "1.0.0", "main": "index.js"})
    with tarfile.open(path, "w:gz") as archive:
        for name, content in {"package.json": about, "index.js": "module.exports = 'soft'\n"}.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content.encode()))
    return path


async def test_npm(tmp_path: Path) -> None:
    package = tarball(tmp_path)
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    url = f"https://{SITE}/files/{package.name}"
    version = {"name": "peer-llama", "version": "1.0.0", "dist": {"tarball": url, "integrity": integrity}}
    about = {"name": "peer-llama", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}

    async def registry(request: Request) -> Response:
        if request.path != "/peer-llama":
            return Response(404)
        return Response(200, {"Content-Type": "application/json"}, json.dumps(about))

    here = tmp_path / "here"
    here.mkdir()
    async with sites(registry, files=tmp_path) as roads, gate(roads) as proxy:
        options = ("--registry", f"https://{SITE}/", "--cafile", ca_file(), "--cache", tmp_path / "cache")
        quiet = ("--no-audit", "--no-fund", "--no-update-notifier", "--fetch-retries", "0")
        way = ("--proxy", proxy.url, "--https-proxy", proxy.url, "--userconfig", os.devnull)
        done = await program("npm", "install", *options, *quiet, *way, "peer-llama", folder=here)
        assert done.code == 0, done.err
        assert came_through(proxy, "https")
    assert (here / "node_modules/peer-llama/index.js").read_text() == "module.exports = 'soft'\n"


# tunnels for anything


async def test_netcat() -> None:
    async with serve(echo, listen="127.0.0.1:0") as there, gate(Anything(there.address)) as proxy:
        done = await program(
            "nc", "-N", "-X", "connect", "-x", proxy.address, "127.0.0.1", "7", stdin=b"through netcat\n"
        )
        assert done.out == b"through netcat\n", done.err
        assert proxy.seen == ["CONNECT 127.0.0.1:7"]


class Anything:
    """A connector that reaches the same address for every target."""

    __name__ = "anything"

    def __init__(self, address: str) -> None:
        self.to = Target.parse(address)
        self.connect = tcp.connect()

    async def __call__(self, target: Target, /) -> Stream:
        return await self.connect(self.to)


async def test_socat() -> None:
    async with serve(echo, listen="127.0.0.1:0") as there, gate(Anything(there.address)) as proxy:
        way = f"PROXY:127.0.0.1:a.example:7,proxyport={proxy.port}"
        done = await program("socat", "-", way, stdin=b"through socat\n")
        assert done.out == b"through socat\n", done.err
        assert proxy.seen == ["CONNECT a.example:7"]


async def test_openssl() -> None:
    async with sites(site) as roads, gate(roads) as proxy:
        way = ("-proxy", proxy.address, "-connect", f"{SITE}:443", "-servername", SITE, "-CAfile", ca_file())
        request = f"GET /hello HTTP/1.1\r\nHost: {SITE}\r\nConnection: close\r\n\r\n".encode()
        done = await program(
            "openssl", "s_client", *way, "-quiet", "-ign_eof", "-verify_return_error", stdin=request
        )
        assert done.out.endswith(b"\r\n\r\nhello"), done.err
