"""What a stack owns opens before it accepts, and closes after its last connection."""

import signal

from tests.runtime.conftest import Start, ask, dial, rest

NOTED = """
class Noted:
    def __init__(self, name):
        self.name = name
    async def __aenter__(self):
        print("enter", self.name, flush=True)
    async def __aexit__(self, *_):
        print("leave", self.name, flush=True)
    async def __call__(self, stream):
        await stream.write(b"%d" % self.name)
        await stream.write(b" answers " + await stream.read())

"""


def test_the_new_opens_before_the_old_drains_and_closes(program: Start, workers: str) -> None:
    server = program(
        NOTED
        + """
built = []

def build():
    built.append(1)
    return tcp.server("127.0.0.1:0", Noted(len(built)))

run(build, on_ready=ready, workers=WORKERS and 1)
""",
        WORKERS=workers,
    )
    server.line("^enter 1$")
    port = server.port()
    old = dial(port)
    assert old.recv(1) == b"1"
    server.signal(signal.SIGHUP)
    server.line("^enter 2$")
    server.line("^INFO draining, connections left: 1$")
    new = dial(port)
    assert new.recv(1) == b"2"
    assert ask(old, b"it") == b" answers it"
    server.line("^leave 1$")
    assert ask(new, b"it") == b" answers it"
    assert server.stop().endswith("leave 2\nINFO drained: the last connection has ended\nINFO stopped\n")


def test_shared_resources_are_entered_once(program: Start) -> None:
    server = program(
        NOTED
        + """
shared = Noted(7)
run(lambda: tcp.server("127.0.0.1:0", shared), on_ready=ready)
"""
    )
    port = server.port()
    old = dial(port)
    assert old.recv(1) == b"7"
    server.reload()
    assert ask(old, b"it") == b" answers it"
    server.line("INFO drained")
    assert ask(dial(port), b"it") == b"7 answers it"
    output = server.stop()
    assert output.count("enter 7") == output.count("leave 7") == 1
    assert output.endswith("leave 7\nINFO drained: the last connection has ended\nINFO stopped\n")


def test_a_failing_resource_keeps_the_current_configuration(program: Start) -> None:
    server = program(
        NOTED
        + """
built = []

class Fails(Noted):
    async def __aenter__(self):
        await super().__aenter__()
        if self.name == 2:
            raise OSError("no database")

def build():
    built.append(1)
    return [tcp.server("127.0.0.1:0", Fails(len(built))), tcp.server("127.0.0.1:0", Noted(10 + len(built)))]

run(build, on_ready=ready)
"""
    )
    port = server.port()
    server.signal(signal.SIGHUP)
    server.line("^ERROR reload failed, the current configuration stays active: OSError: no database$")
    assert ask(dial(port), b"it") == b"1 answers it"
    server.reload()
    assert ask(dial(port), b"it") == b"3 answers it"
    output = server.stop()
    assert [output.count(f"leave {name}\n") for name in (1, 2, 3)] == [1, 0, 1]


# One of its servers breaks after the first connection to the other.
BREAKS = """
import llama

first = asyncio.Event()

class Breaks(llama.Server):
    address = "nowhere"
    service = None
    def bind(self, **_):
        return []
    async def serve(self, sockets, shutdown):
        await first.wait()
        raise RuntimeError("the accept loop broke")

async def greet(stream):
    await stream.write(b"%d" % os.getpid())
    first.set()

run(tcp.server("127.0.0.1:0", greet), Breaks(), on_ready=ready, workers=WORKERS)
"""


def test_a_failing_server_ends_the_process(program: Start) -> None:
    server = program(BREAKS)
    assert rest(dial(server.port())) == str(server.pid).encode()
    assert server.end(1).endswith("RuntimeError: the accept loop broke\n")


def test_a_failing_server_ends_its_worker(program: Start) -> None:
    server = program(BREAKS, WORKERS="1")
    port = server.port()
    worker = int(rest(dial(port)))
    server.line(f"^ERROR worker {worker} died: exit status 1; replacing it at once$")
    assert int(rest(dial(port))) != worker
    server.discard()
