"""The examples in the docstrings of `llama.ws` are code that works."""

import inspect
import textwrap

import pytest

from llama import describe, http, stack, ws
from llama.ws import WebSocket
from tests.ws.talking import echo, echoing


async def chat(socket: WebSocket) -> None:
    await echo(socket)


def example(function: object) -> str:
    """The indented end of a docstring."""
    doc = inspect.getdoc(function) or ""
    start = next(i for i, line in enumerate(doc.splitlines()) if line.startswith("    "))
    return textwrap.dedent("\n".join(doc.splitlines()[start:]))


@pytest.mark.parametrize("factory", [ws.server, ws.inspect, ws.observe])
def test_the_example_of_a_layer_is_a_stack(factory: object) -> None:
    *lines, last = example(factory).splitlines()
    known: dict[str, object] = {"http": http, "stack": stack, "ws": ws, "chat": chat}
    exec("\n".join(lines), known)
    assert describe(eval(last, known)).startswith("http.server() > ws.")


async def test_the_example_of_the_client_talks(capsys: pytest.CaptureFixture[str]) -> None:
    async with echoing() as address:
        text = example(ws.connect).replace("127.0.0.1:8080", address)
        known: dict[str, object] = {"ws": ws}
        exec("async def main():\n" + textwrap.indent(text, "    "), known)
        await known["main"]()  # type: ignore[operator]
    assert capsys.readouterr().out == "hello\n"
