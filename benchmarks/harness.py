"""A case, its peers, and how they are measured: in turn, by the CPU time of the proxy alone."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.certificate import write_certificate
from benchmarks.clock import memory_bytes, settled_cpu_seconds
from benchmarks.peers import Peer, Place
from benchmarks.processes import Process, free_port, origin_ports, python

OURS = "llama"


@dataclass(frozen=True, slots=True)
class Running:
    """A proxy that runs, and how to put load on it."""

    proxy: Process
    port: int
    folder: Path
    quick: bool

    def load(self, name: str, *arguments: str) -> Process:
        """A load generator of benchmarks/load, connected and waiting for `go`."""
        command = python(f"benchmarks.load.{name}", "--port", str(self.port), *arguments)
        load = Process(command, log=self.folder / "load.log")
        if load.line(60) != "ready":
            raise RuntimeError(f"{' '.join(command)} is not ready\n{load.errors()}")
        return load


Sampler = Callable[[Running], float]
"""One measurement of one running proxy, in the unit of the case."""


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table. The peer `llama` is ours; the best of the others is what it is compared with."""

    name: str
    what: str
    unit: str
    peers: Mapping[str, Peer]
    sample: Sampler
    origin: str = "echo"
    bound: float | None = None
    rounds: int = 7
    warm_ups: int = 1


@dataclass(frozen=True, slots=True)
class Result:
    """The samples of one case by peer, round by round."""

    case: Case
    samples: Mapping[str, list[float]] = field(default_factory=dict[str, list[float]])

    @property
    def other(self) -> str | None:
        """The best of the peers that are not ours, None where ours ran alone."""
        others = [name for name in self.samples if name != OURS]
        return min(others, key=self.median, default=None)

    def median(self, peer: str) -> float:
        return statistics.median(self.samples[peer])

    @property
    def ratios(self) -> list[float]:
        """Ours over the best other, round by round; empty where ours ran alone."""
        theirs = self.samples.get(self.other or "", [])
        return [ours / other for ours, other in zip(self.samples[OURS], theirs, strict=False)]

    @property
    def ratio(self) -> float | None:
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def met(self) -> bool | None:
        """Whether the ratio is within its bound, None without one or the other."""
        return None if self.case.bound is None or self.ratio is None else self.ratio <= self.case.bound


def cpu(load: str, *, amount: int, unit: float = 1.0, **options: object) -> Sampler:
    """CPU seconds of the proxy for each unit of the load's work, in `unit` (1e-6 for microseconds)."""

    def sample(running: Running) -> float:
        wanted = max(1, amount // 4) if running.quick else amount
        with running.load(load, "--amount", str(wanted), *_flags(options)) as process:
            before = settled_cpu_seconds(running.proxy.pid)
            process.go()
            done = units(process, 60)
            after = settled_cpu_seconds(running.proxy.pid)
        return (after - before) / done / unit

    return sample


def memory(*, amount: int, **options: object) -> Sampler:
    """Kilobytes of the proxy for each connection that it holds."""

    def sample(running: Running) -> float:
        wanted = max(1, amount // 10) if running.quick else amount
        with running.load("idle", "--amount", str(wanted), *_flags(options)) as process:
            before = memory_bytes(running.proxy.pid)
            process.go()
            held = units(process, 120)
            settled_cpu_seconds(running.proxy.pid)
            return (memory_bytes(running.proxy.pid) - before) / held / 1024

    return sample


def units(load: Process, seconds: float) -> float:
    """What the load says that it has done."""
    return float(json.loads(load.line(seconds))["units"])


def _flags(options: Mapping[str, object]) -> list[str]:
    flags: list[str] = []
    for name, value in options.items():
        if value is True:
            flags.append(f"--{name}")
        elif value is not False:
            flags += [f"--{name}", str(value)]
    return flags


def available(peer: str) -> bool:
    """Whether the program of the peer, the first word of its name, is installed."""
    return shutil.which(peer.split()[0].lower()) is not None


def measure(case: Case, *, quick: bool = False) -> Result:
    """Run every peer of the case at once, each with an origin behind, and sample them in turn."""
    peers = [name for name in case.peers if name == OURS or available(name)]
    result = Result(case, {name: [] for name in peers})
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        running = {name: start(stack, case, name, folder, quick=quick) for name in peers}
        for round in range(-case.warm_ups, 3 if quick and case.rounds > 3 else case.rounds):
            for name, proxy in running.items():
                value = case.sample(proxy)
                if round >= 0:
                    result.samples[name].append(value)
    return result


def start(stack: ExitStack, case: Case, name: str, folder: Path, *, quick: bool) -> Running:
    """One peer of the case with an origin behind it, ended with the stack."""
    log = folder / "log"
    origin = stack.enter_context(Process(python("benchmarks.origin"), log=log))
    port = free_port()
    place = Place(port, origin_ports(origin)[case.origin], *write_certificate(folder), folder)
    proxy = stack.enter_context(Process(case.peers[name](place), log=folder / f"proxy-{port}.log"))
    proxy.wait_for_port(port)
    return Running(proxy, port, folder, quick)
