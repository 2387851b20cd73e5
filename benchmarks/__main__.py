"""`python -m benchmarks [--quick] [--profile CASE] [names...]`."""

from __future__ import annotations

import argparse
import resource
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

from benchmarks.cases import all_cases
from benchmarks.harness import Case, Result, measure
from benchmarks.profile import profile
from benchmarks.report import FOLDER, document, failed, machine, outcome, table


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="llama beside HAProxy, by CPU time"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a look: less work, fewer rounds, nothing written"
    )
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--profile", metavar="CASE", help="show where our proxy spends its time in a case")
    parser.add_argument(
        "names", nargs="*", help="cases to run, or the beginnings of their names; all by default"
    )
    given = parser.parse_args()
    cases = [case for case in all_cases() if not given.names or case.name.startswith(tuple(given.names))]
    problem = _problem(given.names, cases)
    if given.list or problem:
        print(problem or "\n".join(f"{case.name:18} {case.what}" for case in cases))
        return 2 if problem else 0
    _prepare()
    if given.profile:
        return profile(next(case for case in all_cases() if case.name == given.profile))
    results, failures = run(cases, quick=given.quick)
    print("\n" + table(results) if results else "", *failures, sep="\n")
    if failures:
        return 1
    if not given.names and not given.quick:
        notes = FOLDER / "NOTES.md"
        text = document(results, about=machine(), notes=notes.read_text() if notes.exists() else "")
        (FOLDER / "RESULTS.md").write_text(text)
        print("benchmarks/RESULTS.md is written")
    return 0


def _problem(names: Sequence[str], cases: Sequence[Case]) -> str:
    if not sys.platform.startswith("linux"):
        return "the benchmarks read other processes' CPU time, which needs Linux"
    unknown = [name for name in names if not any(case.name.startswith(name) for case in cases)]
    return f"no such case: {', '.join(unknown)}; --list names them" if unknown else ""


def _prepare() -> None:
    """Descriptors for the many connections, and an orderly end when told to stop."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def run(cases: Sequence[Case], *, quick: bool) -> tuple[list[Result], list[str]]:
    """Measure the cases, saying each as it ends; a case that fails does not stop the rest."""
    results: list[Result] = []
    failures: list[str] = []
    for case in cases:
        begun = time.monotonic()
        try:
            result = measure(case, quick=quick)
        except (OSError, RuntimeError) as error:
            failures.append(failed(case, error))
            print(failures[-1], flush=True)
            continue
        results.append(result)
        print(f"{case.name:18} {outcome(result)}, {time.monotonic() - begun:.0f} s", flush=True)
    return results, failures


if __name__ == "__main__":
    sys.exit(main())
