"""`llama mitm --mode transparent` where the kernel leads connections to it, in a network of its own."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.cli.mitm.cloud import HOOK
from tests.http.peers import CLEAN
from tests.tcp.test_transparent import privileged
from tests.tls.programs import needs

ROOT = Path(__file__).parents[2]
GROUP = 4242  # of the proxy: its own connections are not led back to it
PROGRAM = """
import asyncio, subprocess, sys
from llama import http, serve, stack, tls
from llama.http import Response

async def page(request):
    text = f"{request.authority} by {request.version} from the cloud"
    return Response(200, {"Content-Type": "text/plain"}, text)

def curl(url, *options):
    host = url.split("/")[2]
    ways = [part for port in (80, 443) for part in ("--resolve", f"{host}:{port}:192.0.2.1")]
    command = ["curl", "-qsS", "--noproxy", "*", "--max-time", "20", "-w", " %{http_code}", *ways, *options, url]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else f"curl {done.returncode}"

def browse():
    proxy = subprocess.Popen(
        [sys.executable, "-m", "llama", "mitm", "--mode", "transparent", "--listen", "0.0.0.0:9999", "--ca", "ca",
         "--upstream-ca", "site-ca.pem", "--script", "hooks.py", "--block", "bad.example", "--passthrough",
         "bare.example"],
        group=4242, extra_groups=[], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    while "listening" not in (line := proxy.stdout.readline()):
        assert line, "it did not listen"
    ours, theirs = ("--cacert", "ca/ca.pem"), ("--cacert", "site-ca.pem")
    for version in ("--http1.1", "--http2"):
        print(curl("https://site.example/", *ours, version))
    print(curl("http://site.example/"))
    print(curl("http://bad.example/"))
    print(curl("http://bare.example/"))
    print(curl("https://bad.example/", *ours))
    print(curl("https://bare.example/", *theirs))
    print(curl("http://llama.internal/ca.pem", "-o", "/dev/null"))
    proxy.terminate()
    proxy.communicate()
    print(proxy.returncode)

async def main():
    authority = tls.CertificateAuthority.create(name="site")
    authority.write_pem("site-ca.pem")
    files = authority.issue("site.example", "bad.example", "bare.example").write("site")
    handler = stack(http.server(), page)
    async with serve(handler, listen="192.0.2.1:80"), serve(tls.server(*files)(handler), listen="192.0.2.1:443"):
        await asyncio.to_thread(browse)

asyncio.run(main())
"""
OWN = ("nat", "OUTPUT", "REDIRECT", "-m", "owner", "!", "--gid-owner", str(GROUP))


@pytest.mark.peer
@needs("curl")
@pytest.mark.skipif(not privileged(*OWN), reason="needs iptables and a network of our own")
def test_browsing_from_behind_it(tmp_path: Path) -> None:
    (tmp_path / "hooks.py").write_text(HOOK)
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    unshare = shutil.which("unshare")
    assert unshare is not None
    script = (
        "ip link set lo up && ip addr add 192.0.2.1/32 dev lo && "
        f"iptables -w 10 -t nat -A OUTPUT -d 192.0.2.1 -p tcp -m owner ! --gid-owner {GROUP} "
        f"-j REDIRECT --to-ports 9999 && {sys.executable} program.py"
    )
    env = {**CLEAN, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [unshare, "-n", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=env,
        cwd=tmp_path,
    )
    assert done.stdout.splitlines() == [
        "site.example by 1.1 from the llama 200",
        "site.example by 2 from the llama 200",
        "site.example by 1.1 from the llama 200",
        "403 Forbidden: bad.example is blocked by a rule",
        " 403",
        "bare.example by 1.1 from the cloud 200",
        "curl 35",
        "bare.example by 2 from the cloud 200",
        " 200",
        "0",
    ], done.stdout + done.stderr
