"""Stacks as the type checkers see them: good ones pass, a line marked `# expect: error` is refused by both."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CASES = sorted(Path(__file__).with_name("cases").glob("*.py"))
CONFIG = Path(__file__).with_name("pyrightconfig.json")
MARK = "# expect: error"
Lines = dict[str, set[int]]  # the name of a case, the first lines of statements

pytestmark = [
    pytest.mark.house,
    pytest.mark.skipif(
        not importlib.util.find_spec("mypy"), reason="needs the checkers: python dev.py check"
    ),
]


def statements(path: Path) -> dict[int, int]:
    """For each line the first line of the innermost statement that it belongs to."""
    first: dict[int, int] = {}
    for node in ast.walk(
        ast.parse(path.read_text(encoding="utf-8"))
    ):  # outer statements come before inner ones
        if isinstance(node, ast.stmt):
            first.update(dict.fromkeys(range(node.lineno, (node.end_lineno or node.lineno) + 1), node.lineno))
    return first


STATEMENTS = {path.name: statements(path) for path in CASES}


def expected() -> Lines:
    marked: Lines = {}
    for path in CASES:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if MARK in line:
                marked.setdefault(path.name, set()).add(STATEMENTS[path.name][number])
    return marked


def compare(errors: Iterable[tuple[str, int, str]]) -> None:
    """Fails with what was accepted and should not be, and with what was refused and is good."""
    found: Lines = {}
    surprises: list[str] = []
    marked = expected()
    for file, line, message in errors:
        name = Path(file).name
        first = STATEMENTS[name].get(line, line) if name in STATEMENTS else line
        found.setdefault(name, set()).add(first)
        if first not in marked.get(name, ()):
            surprises.append(f"refused:  {name}:{line}: {message}")
    for name, lines in marked.items():
        surprises += [f"accepted: {name}:{line}" for line in sorted(lines - found.get(name, set()))]
    assert not surprises, "\n" + "\n".join(surprises)


def run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def test_mypy_accepts_the_good_and_refuses_the_bad() -> None:
    output = run("mypy", "--no-error-summary", "--no-pretty", "--hide-error-context", *map(str, CASES))
    found = re.findall(r"^(.+?):(\d+)(?::\d+)?: error: (.*)", output, re.MULTILINE)
    compare((file, int(line), message) for file, line, message in found)


def test_pyright_accepts_the_good_and_refuses_the_bad() -> None:
    report = json.loads(run("pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(CONFIG)))
    assert report["summary"]["filesAnalyzed"] >= len(CASES)
    errors = [each for each in report["generalDiagnostics"] if each["severity"] == "error"]
    compare((each["file"], each["range"]["start"]["line"] + 1, each["message"]) for each in errors)
