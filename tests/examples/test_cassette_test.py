import os
import subprocess
import sys
from pathlib import Path

from tests.house.project import ROOT


def test_the_example_of_a_cassette_passes_without_the_network(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "llama._pytest_plugin", "--rootdir", str(tmp_path), "-p",
         "no:cacheprovider",
         "--cassette=none", str(ROOT / "examples" / "cassette_test.py")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )  # fmt: skip
    assert "2 passed" in done.stdout, done.stdout + done.stderr
