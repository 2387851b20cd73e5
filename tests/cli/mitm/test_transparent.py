"""`llama mitm` where rules of the kernel lead: in a network of its own, answering from a recording."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llama import http, mitm
from llama.mitm._har.document import to_entry
from llama.mitm._har.file import document
from tests.pango.conftest import needs
from tests.pango.process import ROOT
from tests.tcp.test_transparent import privileged

pytestmark = [pytest.mark.peer, needs("curl")]

# What is said is read until it listens; there is nothing to connect to before.
SCRIPT = """
set -e
ip link set lo up
{network}
mkfifo said
{python} -m llama mitm --mode {mode} --listen 0.0.0.0:9999 --ca ca --replay in.har --replay-strict >said 2>&1 &
server=$!
trap 'kill $server' EXIT
exec 3<said
while read -r line <&3; do case $line in *listening*) break;; esac; done
cat <&3 >log &
reader=$!
curl -qsS --max-time 20 --noproxy '*' --cacert ca/ca.pem --resolve site.example:443:192.0.2.1 https://site.example/a
trap - EXIT
kill $server
wait $server
wait $reader
cat log
"""
REDIRECT = """
ip addr add 198.51.100.1/24 dev lo
ip route add default dev lo src 198.51.100.1
iptables -w 10 -t nat -A OUTPUT -p tcp ! --dport 9999 -j REDIRECT --to-ports 9999
"""
TPROXY = """
ip addr add 198.51.100.1/24 dev lo
ip route add default dev lo src 198.51.100.1
ip rule add fwmark 1 lookup 100
ip route add local 0.0.0.0/0 dev lo table 100
iptables -w 10 -t mangle -A OUTPUT -p tcp -d 192.0.2.0/24 -j MARK --set-mark 1
iptables -w 10 -t mangle -A PREROUTING -p tcp -d 192.0.2.0/24 -j TPROXY --on-port 9999 --tproxy-mark 1
"""


@pytest.mark.skipif(not privileged(), reason="needs iptables and a network of our own")
@pytest.mark.parametrize(
    ("mode", "network"),
    [
        ("transparent", REDIRECT),
        pytest.param(
            "tproxy",
            TPROXY,
            marks=pytest.mark.skipif(
                not privileged("mangle", "PREROUTING", "TPROXY", "--on-port", "1"), reason="needs TPROXY"
            ),
        ),
    ],
)
def test_connections_that_are_led_here_are_looked_into(tmp_path: Path, mode: str, network: str) -> None:
    seen = mitm.Recorded(0.0, "GET", "https://site.example/a", "1.1", http.Headers(), status=200)
    seen.response_body = mitm.RecordedBody(b"recorded\n", size=9)
    (tmp_path / "in.har").write_text(json.dumps(document([to_entry(seen, tmp_path)])))
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", SCRIPT.format(python=sys.executable, mode=mode, network=network)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={
            **os.environ,
            "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
            "PYTHONPATH": str(ROOT / "src"),
        },
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("recorded\n")
    assert " GET https://site.example/a 200 9 B " in done.stdout
