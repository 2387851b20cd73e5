import os
import subprocess
import sys
from pathlib import Path

from tests.house.project import ROOT


def test_the_example_of_a_test_passes(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "llama._pytest_plugin", "--rootdir", str(tmp_path), "-p",
         "no:cacheprovider",
         str(ROOT / "examples" / "echo_test.py")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )  # fmt: skip
    assert "1 passed" in done.stdout, done.stdout + done.stderr
