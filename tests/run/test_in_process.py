"""`run` in one process."""

import signal

from tests.run.conftest import Start, ask, dial, rest

# Greets with the number of the generation that serves it, and answers one question.
GREETER = """
built = 0

def build():
    global built
    built += 1
    name = b"%d" % built

    async def greet(stream: Stream) -> None:
        await stream.write(name)
        await stream.write(b" answers " + await stream.read())

    return tcp.server("127.0.0.1:0", greet)
"""


def test_a_thousand_connections_in_flight_survive_a_reload(program: Start) -> None:
    server = program(GREETER + "run(build, on_ready=ready)")
    port = server.port()
    clients = [dial(port) for _ in range(1000)]
    assert {client.recv(1) for client in clients} == {b"1"}
    server.reload()
    assert ask(dial(port), b"it") == b"2 answers it"
    assert {ask(client, b"it") for client in clients} == {b" answers it"}
    server.line("INFO done")
    assert "draining 1000 connections" in server.stop()


def test_without_a_function_a_hangup_changes_nothing(program: Start) -> None:
    server = program(
        "async def greet(stream): await stream.write(b'hi')\nrun(greet, listen=0, on_ready=ready)"
    )
    port = server.port()
    server.signal(signal.SIGHUP)
    server.line("INFO SIGHUP is ignored")
    assert rest(dial(port)) == b"hi"
    server.stop()
