"""Programs of other people as the command of `llama mitm`: what they fetch goes through it, told by variables alone."""

import base64
import hashlib
import json
import sys
from pathlib import Path

import pytest

from llama import mitm
from tests.cli.conftest import Llama, Start
from tests.cli.mitm.cloud import TARBALL, WHEEL
from tests.cli.mitm.site import CLEAN, run
from tests.pango.conftest import needs
from tests.pango.process import ROOT

pytestmark = pytest.mark.peer
ENVIRONMENT = {
    **{name: value for name, value in CLEAN.items() if not name.startswith(("npm_config_", "PIP_", "GIT_"))},
    "PYTHONPATH": str(ROOT / "src"),
}
LLAMA = (sys.executable, "-m", "llama", "mitm", "--ca", "ca", "--upstream-ca", "ca.pem", "--har", "out.har")


@pytest.fixture
def www(start: Start, files: Path) -> Llama:
    """A server of the files in www."""
    (files / "www").mkdir()
    return start("static", "www", "--cert", "c.pem", "--key", "k.pem")


def fetched(*command: str | Path, **variables: str) -> list[str]:
    """The paths that a command asked for, which has to end well."""
    done = run(*LLAMA, *command, variables={**ENVIRONMENT, "HOME": str(Path.cwd()), **variables})
    assert done.returncode == 0, done.stdout + done.stderr
    return [
        each.url.partition("/")[2].partition("/")[2].partition("/")[2]
        for each in mitm.read_har(Path("out.har"))
    ]


@needs("git")
@pytest.mark.parametrize("mode", ["http", "socks5"])
def test_git(www: Llama, files: Path, mode: str) -> None:
    here = {**ENVIRONMENT, "HOME": str(files)}
    for command in (
        "init -q made",
        "-C made -c user.name=a -c user.email=a@b.example commit -q --allow-empty -m first",
        "clone -q --bare made www/made.git",
        "-C www/made.git update-server-info",
    ):
        assert run("git", *command.split(), variables=here).returncode == 0
    asked = fetched("--mode", mode, "git", "clone", f"https://localhost:{www.port}/made.git", "got")
    assert run("git", "-C", "got", "log", "--format=%s", variables=here).stdout == "first\n"
    assert "made.git/info/refs?service=git-upload-pack" in asked
    assert "made.git/HEAD" in asked


def test_pip(www: Llama, files: Path) -> None:
    pytest.importorskip("pip")
    (files / "www/simple/cloudy").mkdir(parents=True)
    name = "cloudy-1.0-py3-none-any.whl"
    (files / "www/simple/cloudy/index.html").write_text(f'<a href="/{name}">cloudy</a>')
    (files / "www" / name).write_bytes(WHEEL)
    asked = fetched(
        "--", sys.executable, "-m", "pip", "--no-cache-dir", "--disable-pip-version-check", "download", "--no-deps",
        "--dest", "got", "--index-url", f"https://localhost:{www.port}/simple", "cloudy",
    )  # fmt: skip
    assert (files / "got" / name).read_bytes() == WHEEL
    assert asked == ["simple/cloudy/", name]


@needs("npm")
@pytest.mark.parametrize("mode", ["http", "socks5"])
def test_npm(www: Llama, files: Path, mode: str) -> None:
    site = f"https://localhost:{www.port}"
    digest = base64.b64encode(hashlib.sha512(TARBALL).digest()).decode()
    dist = {"tarball": f"{site}/cloudy-1.0.0.tgz", "integrity": f"sha512-{digest}"}
    version = {"name": "cloudy", "version": "1.0.0", "dist": dist}
    told = {"name": "cloudy", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
    (files / "www/cloudy").write_text(json.dumps(told))
    (files / "www/cloudy-1.0.0.tgz").write_bytes(TARBALL)
    options = (f"--registry={site}/", "--cache=cache", "--no-audit")
    asked = fetched("--mode", mode, "--", "npm", "pack", "cloudy", *options)
    assert (files / "cloudy-1.0.0.tgz").read_bytes() == TARBALL
    assert {"cloudy", "cloudy-1.0.0.tgz"} <= {*asked}


@needs("wget")
def test_wget(www: Llama, files: Path) -> None:
    (files / "www/page").write_text("from the cloud")
    (files / ".wgetrc").write_text("user_agent = ours")
    assert fetched("--", "wget", "-q", f"https://localhost:{www.port}/page", "-O", "got") == ["page"]
    assert (files / "got").read_text() == "from the cloud"
    (entry,) = mitm.read_har(Path("out.har"))
    assert entry.headers["user-agent"] == "ours"
