"""A case, its peers, and how they are measured: in turn, by the CPU time of the proxy alone."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.certificate import write_certificate
from benchmarks.clock import memory_bytes, settled_cpu_seconds
from benchmarks.peers import Missing, Peer, Place
from benchmarks.processes import Process, free_port, origin_ports, python

OURS = "llama"


@dataclass(frozen=True, slots=True)
class Running:
    """A proxy that runs, and how to put load on it."""

    proxy: Process
    port: int
    to: int
    folder: Path
    quick: bool

    def load(self, name: str, *arguments: str) -> Process:
        """A load generator of benchmarks/load, connected and waiting for `go`."""
        command = python(
            f"benchmarks.load.{name}", "--port", str(self.port), "--to", str(self.to), *arguments
        )
        load = Process(command, log=self.folder / "load.log")
        if load.line(60) != "ready":
            raise RuntimeError(f"{' '.join(command)} is not ready\n{load.errors()}")
        return load


Sampler = Callable[[Running], float]
"""One measurement of one running proxy, in the unit of the case."""


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table. The peer `llama` is ours; it is compared with `against`, or the best of the others."""

    name: str
    what: str
    unit: str
    peers: Mapping[str, Peer]
    sample: Sampler
    origin: str = "echo"
    bound: float | None = None
    against: str | None = None
    rounds: int = 7
    warm_ups: int = 1


@dataclass(frozen=True, slots=True)
class Result:
    """The samples of one case by peer, round by round, and the peers that are not installed."""

    case: Case
    samples: Mapping[str, list[float]] = field(default_factory=dict[str, list[float]])
    missing: tuple[str, ...] = ()

    @property
    def other(self) -> str | None:
        """The peer that ours is compared with, None where that did not run."""
        if self.case.against is not None:
            return self.case.against if self.case.against in self.samples else None
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


def told(load: str, figure: str, *, amount: int, **options: object) -> Sampler:
    """A figure that the load itself takes and tells."""

    def sample(running: Running) -> float:
        wanted = max(1, amount // 4) if running.quick else amount
        with running.load(load, "--amount", str(wanted), *_flags(options)) as process:
            process.go()
            return figures(process, 60)[figure]

    return sample


def units(load: Process, seconds: float) -> float:
    """What the load says that it has done."""
    return figures(load, seconds)["units"]


def figures(load: Process, seconds: float) -> dict[str, float]:
    """All that the load tells at its end."""
    told: dict[str, float] = json.loads(load.line(seconds))
    return told


def _flags(options: Mapping[str, object]) -> list[str]:
    flags: list[str] = []
    for name, value in options.items():
        if value is True:
            flags.append(f"--{name}")
        elif value is not False:
            flags += [f"--{name}", str(value)]
    return flags


def measure(case: Case, *, quick: bool = False) -> Result:
    """Run every peer of the case at once, each with an origin behind, and sample them in turn."""
    samples: dict[str, list[float]] = {}
    missing: list[str] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        running: dict[str, Running] = {}
        for name in case.peers:
            try:
                running[name] = start(stack, case, name, folder, quick=quick)
            except Missing:
                missing.append(name)
            else:
                samples[name] = []
        for round in range(-case.warm_ups, 3 if quick and case.rounds > 3 else case.rounds):
            for name, proxy in running.items():
                value = case.sample(proxy)
                if round >= 0:
                    samples[name].append(value)
    return Result(case, samples, tuple(missing))


def start(stack: ExitStack, case: Case, name: str, folder: Path, *, quick: bool) -> Running:
    """One peer of the case with an origin behind it, ended with the stack; raises Missing."""
    port, to = free_port(), _origin(stack, case, folder)
    place = Place(port, to, *write_certificate(folder), folder)
    proxy = stack.enter_context(Process(case.peers[name](place), log=folder / f"proxy-{port}.log"))
    proxy.wait_for_port(port)
    return Running(proxy, port, to, folder, quick)


def _origin(stack: ExitStack, case: Case, folder: Path) -> int:
    """The port of the case's origin; that of `none` is for the load to listen on."""
    if case.origin == "none":
        return free_port()
    origin = stack.enter_context(Process(python("benchmarks.origin"), log=folder / "log"))
    return origin_ports(origin)[case.origin]
