"""Where our proxy spends its time in a case: py-spy beside it, the load of the case on it."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from benchmarks.harness import OURS, Case, Running, start
from benchmarks.processes import Process

SECONDS = 8
RATE = 400


def profile(case: Case) -> int:
    """Put the case's load on our proxy alone for some seconds, and print its dearest functions."""
    spy = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if spy is None:
        print("--profile needs py-spy: pip install py-spy")
        return 2
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        proxy = start(stack, case, OURS, folder, quick=False)
        case.sample(proxy)
        stacks = _record(spy, case, proxy, folder / "stacks")
    print(summary(stacks))
    return 0


def _record(spy: str, case: Case, proxy: Running, output: Path) -> list[str]:
    what = ["--pid", str(proxy.proxy.pid), "--rate", str(RATE), "--duration", str(SECONDS)]
    how = ["--native", "--function", "--subprocesses", "--format", "raw", "--output", str(output)]
    with Process([spy, "record", *what, *how], log=proxy.folder / "spy.log") as sampler:
        while sampler.child.poll() is None:
            case.sample(proxy)
        if not output.exists():
            raise RuntimeError(f"py-spy recorded nothing\n{sampler.errors()}")
    return output.read_text().splitlines()


def summary(stacks: Iterable[str], top: int = 25) -> str:
    """The functions with the most samples of their own, and with those of what they call.

    A stack is `outermost;...;innermost samples`.
    """
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for line in stacks:
        frames, _, count = line.rpartition(" ")
        names = [frame for frame in frames.split(";") if frame]
        if names:
            own[names[-1]] += int(count)
            whole.update(dict.fromkeys(names, int(count)))
    total = own.total() or 1
    lines = [f"{total} samples"]
    for title, counts in (("own time", own), ("with what they call", whole)):
        lines += ["", title, *(f"{count / total:6.1%}  {name}" for name, count in counts.most_common(top))]
    return "\n".join(lines)
