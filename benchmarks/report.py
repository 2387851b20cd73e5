"""The table that people read, and the words around it."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import OURS, Case, Result
from benchmarks.peers import Missing, module, program

HEAD = ("what", "unit", "compared with", "theirs", "llama", "ratio", "of rounds", "bound", "met")
FOLDER = Path(__file__).resolve().parent

INTRODUCTION = """\
# Results

CPU time of the proxy process, user and system, for one unit of work; less is better. All peers of a line ran
side by side and were sampled in turn; `theirs` and `llama` are medians of the rounds, `ratio` the median of
the rounds' ratios and `of rounds` their least and greatest. Where HAProxy ran in several settings, the better
is the one compared with; of other peers the one that the bound is about. The memory lines are what one connection
adds to the process, measured once (PSS); lines in milliseconds are by the clock. Written by `make bench`; do not
edit it. The notes below come from NOTES.md.
"""


def table(results: Sequence[Result]) -> str:
    """A Markdown table, a line for each case, in columns that line up."""
    rows = [HEAD, *map(_row, results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"


def _row(result: Result) -> tuple[str, ...]:
    case, ratios, other = result.case, result.ratios, result.other
    return (
        case.what,
        case.unit,
        other or _absence(result),
        "" if other is None else figure(result.median(other)),
        figure(result.median(OURS)),
        "" if result.ratio is None else figure(result.ratio),
        f"{figure(min(ratios))} to {figure(max(ratios))}" if len(ratios) > 1 else "",
        "" if case.bound is None else f"{case.bound:g}",
        {True: "yes", False: "**no**", None: ""}[result.met],
    )


def _absence(result: Result) -> str:
    """Why there is nothing to compare with."""
    names = [name for name in result.missing if result.case.against in (None, name)]
    return f"{', '.join(names)}: not installed" if names else ""


def figure(value: float) -> str:
    """Three significant digits or so, and no exponent."""
    decimals = 3 if abs(value) < 0.1 else 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{decimals}f}"


def settings(results: Sequence[Result]) -> str:
    """Every peer's figure in the cases that have more than two peers, and the peers that were not there."""
    lines: list[str] = []
    for result in results:
        if len(result.samples) > 2:
            figures = [f"{name} {figure(result.median(name))}" for name in result.samples]
            lines.append(f"- {result.case.what}, {result.case.unit}: {', '.join(figures)}")
    absent = sorted({name for result in results for name in result.missing})
    if absent:
        lines.append(f"- not installed, and so left out: {', '.join(absent)}")
    return "\n".join(lines) + "\n" if lines else ""


def machine() -> str:
    """What the figures were taken on and with."""
    system = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}"
    commit = _output("git", "-C", str(FOLDER), "describe", "--always", "--dirty") or "unknown"
    busy = f"load average when it ended {os.getloadavg()[1]:.1f}, the benchmark's own 1 to 2 among it"
    lines = (
        f"- {dt.date.today().isoformat()}, {_processor()}, {system}",
        f"- CPython {platform.python_version()}, {ssl.OPENSSL_VERSION}",
        f"- {_peers()}",
        f"- commit {commit}; {busy}",
    )
    return "\n".join(lines) + "\n"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


VERSIONS = {
    "HAProxy": ("haproxy", "-v"),
    "nginx": ("nginx", "-v"),
    "Dante": ("danted", "-v"),
    "proxy.py": ("proxy", "--version"),
    "mitmproxy": ("mitmdump", "--version"),
}
PACKAGES = {
    "pproxy": "pproxy",
    "uvicorn": "uvicorn",
    "httptools": "uvicorn",
    "uvloop": "uvicorn",
    "granian": "granian",
    "hypercorn": "hypercorn",
    "aioquic": "hypercorn",
    "h2": "h2",
    "qh3": "qh3",
}
"""Packages, and the peer in whose environment they are."""


def _peers() -> str:
    """The versions of the peers that are installed."""
    found: list[str] = []
    for name, (command, option) in VERSIONS.items():
        try:
            done = subprocess.run([program(command), option], capture_output=True, text=True, check=False)
        except Missing:
            continue
        if version := re.search(r"\d+(\.\d+)+", done.stdout + done.stderr):
            found.append(f"{name} {version[0]}")
    for name, needed in PACKAGES.items():
        try:
            python = module(needed, name)[0]
        except Missing:
            continue
        asks = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
        found.append(f"{name} {_output(python, '-c', asks, name)}")
    return ", ".join(found) or "no peers"


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def document(results: Sequence[Result], *, about: str, notes: str) -> str:
    """The whole of RESULTS.md."""
    parts = [INTRODUCTION, about, table(results)]
    others = settings(results)
    if others:
        parts.append(f"All settings that ran:\n\n{others}")
    if notes.strip():
        parts.append(notes)
    return "\n".join(parts)


def outcome(result: Result) -> str:
    """One line to show while the rest runs."""
    figures = ", ".join(f"{name} {figure(result.median(name))}" for name in result.samples)
    ratio = "" if result.ratio is None else f", ratio {figure(result.ratio)}"
    bound = "" if result.case.bound is None else f" (bound {result.case.bound:g})"
    missing = f"; not installed: {', '.join(result.missing)}" if result.missing else ""
    return f"{figures} {result.case.unit}{ratio}{bound}{missing}"


def failed(case: Case, error: BaseException) -> str:
    """The line for a case that did not run."""
    return f"{case.name}: {type(error).__name__}: {error}"
