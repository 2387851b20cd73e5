"""The SOCKS5 servers that are compared."""

from __future__ import annotations

import sys

from benchmarks.peers import Place, module, program

DANTE = """\
logoutput: {folder}/dante-{port}.out
internal: 127.0.0.1 port = {port}
external: 127.0.0.1
socksmethod: none
clientmethod: none
client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 command: connect }}
"""


def llama(place: Place) -> list[str]:
    """The program itself: `llama socks5`, with its default timeouts."""
    return [sys.executable, "-m", "llama", "socks5", "--listen", f"127.0.0.1:{place.port}"]


def microsocks(place: Place) -> list[str]:
    """A small server in C with a thread for each connection."""
    return [program("microsocks"), "-i", "127.0.0.1", "-p", str(place.port)]


def dante(place: Place) -> list[str]:
    """Dante's server with its processes; it logs nothing of a connection."""
    path = place.folder / f"dante-{place.port}.conf"
    path.write_text(DANTE.format(port=place.port, folder=place.folder))
    pid = place.folder / f"dante-{place.port}.pid"
    return [program("danted"), "-f", str(path), "-p", str(pid)]


# pproxy takes uvloop where that is installed, and does not start with versions that make no loop by themselves.
STANDARD_LOOP = """\
import runpy, sys
sys.modules["uvloop"] = None
runpy.run_module("pproxy", run_name="__main__", alter_sys=True)
"""


def pproxy(place: Place) -> list[str]:
    """A proxy in Python, on asyncio's streams and the standard loop."""
    python = module("pproxy")[0]
    return [python, "-c", STANDARD_LOOP, "-l", f"socks5://127.0.0.1:{place.port}"]


PEERS = {"microsocks": microsocks, "dante": dante, "pproxy": pproxy, "llama": llama}
