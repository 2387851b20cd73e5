"""SOCKS5: connect, handshake, one round trip, close, 8 at a time; and many bytes through one connection."""

from benchmarks.harness import Case, cpu
from benchmarks.socks_peers import PEERS

ORDER = 50
CONNECT = cpu("short", amount=1_000, unit=1e-6, connections=8, socks=True)
BULK = cpu("bulk", amount=200_000_000, socks=True)


CASES = [
    Case(
        "socks5-connect",
        "SOCKS5 connections",
        "us/connection",
        PEERS,
        CONNECT,
        bound=1.0,
        against="pproxy",
        rounds=5,
    ),
    Case(
        "socks5-bulk",
        "SOCKS5 bulk, download",
        "s/GB",
        PEERS,
        BULK,
        "give",
        bound=1.0,
        against="pproxy",
        rounds=5,
    ),
]
