"""Other programs that speak TLS, driven beside a running loop."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

PATIENCE = 20.0


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip where one of these is not installed."""
    missing = [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


class Program:
    """A running program and all that it said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said = ""

    def type(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())

    async def expect(self, words: str) -> str:
        """Read until these words came; what was said before them."""
        assert self._process.stdout is not None
        while words not in self.said:
            try:
                data = await asyncio.wait_for(self._process.stdout.read(65536), PATIENCE)
            except TimeoutError:
                data = b""
            assert data, f"it did not say {words!r}:\n{self.said}"
            self.said += data.decode(errors="replace")
        before, _, self.said = self.said.partition(words)
        return before

    async def end(self) -> tuple[int, str]:
        """Close its input: its exit code, and the rest of what it says."""
        output, _ = await asyncio.wait_for(self._process.communicate(b""), PATIENCE)
        return self._process.returncode or 0, self.said + output.decode(errors="replace")


@asynccontextmanager
async def running(*command: str, cwd: Path | None = None) -> AsyncGenerator[Program]:
    """Run a program while the block runs; its standard error is in what it says."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def output_of(*command: str, cwd: Path | None = None) -> tuple[int, str]:
    """Run a program to its end: its exit code and what it said."""
    async with running(*command, cwd=cwd) as program:
        return await program.end()
