"""Sets the project up and runs its tasks: `python dev.py run|test|check|...`.

Needs nothing but a Python that starts it; the tasks run on the newest CPython from 3.11 up that is found, in
virtual environments below the project (.venv, and .venvs/3.11 and so on for `check`), made once and stamped.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

ROOT = os.path.dirname(os.path.abspath(__file__))
OLDEST = (3, 11)
WINDOWS = os.name == "nt"
TOO_OLD = re.compile(r"(?<![0-9.])3\.(10|[0-9])(?![0-9])")  # in a path: not worth a try

PROBE = """
import json, platform, sys, sysconfig
try:
    import ensurepip, venv
    makes_venvs = True
except ImportError:
    makes_venvs = False
print(json.dumps({
    "path": getattr(sys, "_base_executable", None) or sys.executable,
    "version": list(sys.version_info[:3]),
    "suitable": platform.python_implementation() == "CPython" and sys.version_info.releaselevel == "final"
        and not sysconfig.get_config_var("Py_GIL_DISABLED"),
    "makes_venvs": makes_venvs,
}))
"""


PACE = """
import time
started = time.process_time()
for _ in range(100):
    {number: f"{number:x}".encode() for number in range(2000)}
print(time.process_time() - started)
"""


class Missing(Exception):
    """Something this machine lacks: its message is the one line to show."""


class Python(NamedTuple):
    """An interpreter that was really run; ordered by version."""

    version: tuple[int, int, int]
    makes_venvs: bool
    path: str

    @property
    def minor(self) -> str:
        return ".".join(map(str, self.version[:2]))

    def __str__(self) -> str:
        return "CPython " + ".".join(map(str, self.version))


# --- interpreters ---


def candidates() -> list[str]:
    """Paths that may be Pythons: this one, the search path, pyenv's, uv's, the installers'."""
    home = os.path.expanduser("~")
    pyenv = os.environ.get("PYENV_ROOT", os.path.join(home, ".pyenv"))
    found = [sys.executable]
    names = ("python.exe", "python3.exe") if WINDOWS else ("python3", "python3.[0-9]", "python3.[0-9][0-9]")
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        for name in names:
            found += sorted(glob.glob(os.path.join(glob.escape(folder), name)))
    for pattern in (
        os.path.join(pyenv, "versions", "3.*", "bin", "python3"),
        os.path.join(pyenv, "pyenv-win", "versions", "3.*", "python.exe"),
        os.path.join(home, ".local", "share", "uv", "python", "cpython-3.*", "bin", "python3"),
        "/Library/Frameworks/Python.framework/Versions/3.*/bin/python3",
        "/opt/homebrew/bin/python3.*[0-9]",
    ):
        found += sorted(glob.glob(pattern))
    if WINDOWS and shutil.which("py"):
        listing = subprocess.run(["py", "-0p"], capture_output=True, text=True, check=False).stdout
        found += re.findall(r"[A-Za-z]:\\.*python\.exe", listing)
    different = {os.path.realpath(path): path for path in found}
    return [path for path in different.values() if not TOO_OLD.search(path)]


def probe(path: str) -> Python | None:
    """Runs a candidate: some exist and fail, as pyenv's shims do for versions that are not chosen."""
    try:
        done = subprocess.run([path, "-c", PROBE], capture_output=True, text=True, check=True, timeout=20)
        facts = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    version = tuple(facts["version"])
    if not facts["suitable"] or version[:2] < OLDEST:
        return None
    return Python(version, facts["makes_venvs"], facts["path"])


def pythons() -> list[Python]:
    """One interpreter for each suitable minor version, newest first."""
    best: dict[str, Python] = {}
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(probe, candidates()))
    for python in filter(None, found):
        rival = best.get(python.minor)
        if rival is None or (python.makes_venvs, python.version) > (rival.makes_venvs, rival.version):
            best[python.minor] = python
    if not best:
        raise Missing("No CPython 3.11 or later was found: install one (3.13 is a good choice).")
    able = sorted((python for python in best.values() if python.makes_venvs), reverse=True)
    if not able:
        raise Missing("Python has no venv: apt install python3-venv")
    return able


def fastest() -> Python:
    """The interpreter that takes least for the same work: builds without optimizations take up to half as much more."""
    with ThreadPoolExecutor() as pool:
        found = [
            python for python in pool.map(probe, candidates()) if python is not None and python.makes_venvs
        ]
    return min(found or pythons(), key=lambda python: min(paced(python.path) for _ in range(3)))


def paced(path: str) -> float:
    """The seconds that some work takes an interpreter."""
    done = subprocess.run([path, "-c", PACE], capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else float("inf")


# --- environments ---


class Venv:
    """A virtual environment below the project."""

    def __init__(self, folder: str) -> None:
        self.folder = os.path.join(ROOT, folder)
        self.name = folder
        self.python = os.path.join(self.folder, "Scripts\\python.exe" if WINDOWS else "bin/python")

    def stamp(self, group: str) -> str:
        return os.path.join(self.folder, "stamp-" + group)

    def is_ready(self, group: str) -> bool:
        """Whether this very project was set up in it, with these requirements, and it still starts."""
        try:
            with open(self.stamp(group), encoding="utf-8") as file:
                return file.read() == fingerprint(group) and self.works()
        except OSError:
            return False

    def is_of(self, python: Python) -> bool:
        """Whether it was made by an interpreter of the same minor version."""
        try:
            with open(os.path.join(self.folder, "pyvenv.cfg"), encoding="utf-8") as file:
                return f"version = {python.minor}." in file.read()
        except OSError:
            return False

    def works(self) -> bool:
        try:
            return subprocess.run([self.python, "-c", ""], capture_output=True, check=False).returncode == 0
        except OSError:
            return False

    def make(self, python: Python, group: str) -> None:
        """Makes it, or completes it, for one requirements file."""
        print(f"setup: {self.name} on {python} with {requirements(group)}", flush=True)
        if not (self.is_of(python) and self.works()):
            shutil.rmtree(self.folder, ignore_errors=True)
            quietly([python.path, "-m", "venv", self.folder], "cannot make a virtual environment")
        pip = [self.python, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", "install"]
        pins = requirements(group)
        quietly([*pip, "-r", pins], f"cannot install {pins}")
        if group != "bench":
            quietly([*pip, "--no-build-isolation", "--no-deps", "-e", "."], "cannot install the project")
        with open(self.stamp(group), "w", encoding="utf-8") as file:
            file.write(fingerprint(group))


def requirements(group: str) -> str:
    return f"requirements/{group}.txt"


def fingerprint(group: str) -> str:
    """Changes when an environment must be brought up to date."""
    digest = hashlib.sha256(ROOT.encode())
    for name in ("pyproject.toml", *map(requirements, ("run", "test", group))):
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def quietly(command: list[str], failure: str) -> None:
    """Runs a set-up command; what it printed is shown only when it failed."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        raise Missing(f"{failure}: the command above this line says why")


def ready(group: str) -> Venv:
    """The main environment, set up for a group of requirements; the interpreter is chosen once."""
    venv = Venv(".venv")
    if not venv.is_ready(group):
        venv.make(pythons()[0], group)
    return venv


# --- tasks ---

# pytest on every core; the tests of a file stay together, for they may share what took long to make.
SIDE_BY_SIDE = ("-n", "auto", "--maxprocesses", "4", "--dist", "loadfile")


def say(task: str, what: str) -> None:
    print(f"{task}: {what}", flush=True)


def call(venv: Venv, *arguments: str) -> int:
    """Runs a module of an environment; Ctrl-C is the child's to answer."""
    command = [venv.python, "-m", *arguments]
    child = subprocess.Popen(command, cwd=ROOT)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue


def run(arguments: list[str]) -> int:
    """pango demo: TLS in front of a small web page"""
    return call(ready("run"), "pango", *(arguments or ["demo"]))


def test(arguments: list[str]) -> int:
    """pytest on the newest Python"""
    return call(ready("test"), "pytest", *(SIDE_BY_SIDE if not arguments else ()), *arguments)


def soak(arguments: list[str]) -> int:
    """the tests that take minutes: gigabytes through pango"""
    return call(ready("test"), "pytest", "-m", "soak", *arguments)


def lint(arguments: list[str]) -> int:
    """ruff, mypy and pyright, without the tests"""
    return report(static(ready("dev")))


def format(arguments: list[str]) -> int:
    """ruff's formatter and its safe fixes"""
    venv = ready("dev")
    tidy = call(venv, "ruff", "format", "--quiet")
    return tidy or call(venv, "ruff", "check", "--fix") or call(venv, "ruff", "format", "--quiet")


def names(arguments: list[str]) -> int:
    """writes the list of public names that the tests compare with"""
    return call(ready("test"), "tests.house.public_names", *arguments)


def bench(arguments: list[str]) -> int:
    """the benchmarks, beside nginx, HAProxy and others where they are installed"""
    peers = Venv(os.path.join(".venvs", "bench"))
    if not peers.is_ready("bench"):
        peers.make(pythons()[0], "bench")
    os.environ["PATH"] = os.path.dirname(peers.python) + os.pathsep + os.environ.get("PATH", os.defpath)
    ours = Venv(os.path.join(".venvs", "ours"))
    if not ours.is_ready("test"):
        ours.make(fastest(), "test")
    return call(ours, "benchmarks", *arguments)


def check(arguments: list[str]) -> int:
    """ruff, mypy, pyright, then the tests on every CPython from 3.11 up"""
    found = pythons()
    main = Venv(".venv")
    if not (main.is_of(found[0]) and main.is_ready("dev")):
        main.make(found[0], "dev")
    failed = static(main)
    for python in reversed(found[1:]):
        venv = Venv(os.path.join(".venvs", python.minor))
        if not venv.is_ready("test"):
            venv.make(python, "test")
        portable = ("-m", "not peer and not house")
        failed += step(f"tests on {python}", venv, "pytest", *SIDE_BY_SIDE, *portable, *arguments)
    failed += step(f"tests on {found[0]}", main, "pytest", *SIDE_BY_SIDE, *arguments)
    return report(failed)


def static(venv: Venv) -> list[str]:
    return [
        *step("format", venv, "ruff", "format", "--check", "--quiet"),
        *step("lint", venv, "ruff", "check", "--quiet"),
        *step("types by mypy", venv, "mypy", "--no-error-summary"),
        *step("types by pyright", venv, "pyright", "--pythonpath", venv.python),
    ]


def step(name: str, venv: Venv, *command: str) -> list[str]:
    """Runs one step of a check and goes on when it fails: its name is returned then."""
    say("check", f"{name}: {' '.join(command[:3])}")
    started = time.monotonic()
    if call(venv, *command) == 0:
        return []
    say("check", f"{name} FAILED after {time.monotonic() - started:.0f} s")
    return [name]


def report(failed: list[str]) -> int:
    if failed:
        say("check", "FAILED: " + ", ".join(failed))
    return 1 if failed else 0


TASKS = {task.__name__: task for task in (run, test, soak, check, lint, format, names, bench)}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="dev.py",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="\n".join(f"{name:8}{task.__doc__}" for name, task in TASKS.items()),
    )
    parser.add_argument("task", choices=TASKS, metavar="TASK")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on to what the task runs")
    options = parser.parse_args()
    task = TASKS[options.task]
    say(options.task, str(task.__doc__))
    try:
        return task(options.arguments)
    except Missing as missing:
        print(missing, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
