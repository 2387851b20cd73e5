"""gRPC calls of all four kinds, recorded by `llama mitm` and replayed without the server."""

import json
import sys
from pathlib import Path

import pytest

from tests.cli.mitm.site import CLEAN, run
from tests.http.grpc_peer_process import EXPECTED, PEER, grpc_server
from tests.pango.process import ROOT

pytestmark = [pytest.mark.peer, pytest.mark.llama_timeout(120)]


def test_grpc_calls_of_all_four_kinds_replay(files: Path) -> None:
    with grpc_server() as port:
        calls = ("--", sys.executable, str(PEER), "call", f"localhost:{port}", "proxied")
        recorded = _mitm("--har", "out.har", *calls)
        assert recorded == EXPECTED
    assert _mitm("--replay", "out.har", "--replay-strict", *calls) == EXPECTED
    *_, last = json.loads((files / "out.har").read_text())["log"]["entries"]
    assert {"name": "grpc-status", "value": "0"} in last["response"]["_trailers"]
    assert last["_interleaving"][0] == [0, 7] and last["_interleaving"][-1] == [35, -1]


def _mitm(*arguments: str) -> str:
    command = (sys.executable, "-m", "llama", "mitm", "--ca", "ca", *arguments)
    done = run(*command, variables={**CLEAN, "PYTHONPATH": str(ROOT / "src")})
    return done.stdout if done.returncode == 0 else f"{done.stdout}{done.stderr}"
