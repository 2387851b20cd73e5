import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from llama import ConfigError, Stream, Target, serve, stack, tcp
from llama.tcp._io.stream import SocketStream

connect = tcp.connect()


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


async def answers(host: str, port: int) -> bool:
    """Whether what listens there echoes."""
    stream = await connect(Target(host, port))
    try:
        await stream.write(b"hi")
        return await stream.read() == b"hi"
    finally:
        await stream.aclose()


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
needs_unix = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")


# Addresses.


@needs_ipv6
@pytest.mark.parametrize("address", [":0", 0])
async def test_without_a_host_it_listens_on_both_families(address: str | int) -> None:
    async with serve(tcp.server(address, echo)) as server:
        assert len(server.addresses) == 1
        assert await answers("127.0.0.1", server.port)
        assert await answers("::1", server.port)


@pytest.mark.parametrize("address", ["127.0.0.1:0", ("127.0.0.1", 0)])
async def test_an_ipv4_address_is_bound(address: str | tuple[str, int]) -> None:
    async with serve(tcp.server(address, echo)) as server:
        assert server.addresses == (f"127.0.0.1:{server.port}",)
        assert await answers("127.0.0.1", server.port)


@needs_ipv6
async def test_an_ipv6_address_does_not_accept_ipv4() -> None:
    async with serve(tcp.server("[::1]:0", echo)) as server:
        assert server.addresses == (f"[::1]:{server.port}",)
        assert await answers("::1", server.port)
        with socket.create_server(("127.0.0.1", server.port)):
            pass


async def test_a_name_listens_on_all_its_addresses_at_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    def two(host: str, port: int, **_: object) -> list[object]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in ("127.0.0.1", "127.0.0.2", "127.0.0.1")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    async with serve(tcp.server("two.example:0", echo)) as server:
        first, second = server.addresses
        assert first == f"127.0.0.1:{server.port}" and second == f"127.0.0.2:{server.port}"
        assert await answers("127.0.0.1", server.port)
        assert await answers("127.0.0.2", server.port)


@needs_unix
async def test_a_names_address_missing_on_this_machine_is_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def two_addresses(host: str, port: int, **options: object) -> list[object]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in ("192.0.2.1", "127.0.0.1")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
    for shared in (False, True):
        sockets = tcp.server("a-name:0", echo).bind(reuse_port=shared)
        assert [each.getsockname()[0] for each in sockets] == ["127.0.0.1"]
        for each in sockets:
            each.close()


async def test_a_socket_path_is_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    async with serve(tcp.server(f"unix:{path}", echo)) as server:
        assert server.addresses == (f"unix:{path}",)
        assert await answers(f"unix:{path}", 0)
    assert not path.exists()


@needs_unix
async def test_a_stale_socket_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
        stale.listen()
    assert path.is_socket()
    async with serve(tcp.server(f"unix:{path}", echo)):
        assert await answers(f"unix:{path}", 0)


@needs_unix
async def test_a_socket_file_with_a_listener_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    async with serve(tcp.server(f"unix:{path}", echo)):
        with pytest.raises(OSError, match=f"cannot listen on unix:{path}: Address already in use"):
            async with serve(tcp.server(f"unix:{path}", echo)):
                pass
        assert await answers(f"unix:{path}", 0)


@needs_unix
async def test_a_socket_file_whose_listener_has_a_full_queue_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as waiting:
        full.bind(str(path))
        full.listen(0)
        waiting.connect(str(path))
        with pytest.raises(OSError, match=f"cannot listen on unix:{path}: Address already in use"):
            async with serve(tcp.server(f"unix:{path}", echo)):
                pass
        assert path.is_socket()


@needs_unix
async def test_a_regular_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("precious")
    with pytest.raises(OSError, match=f"cannot listen on unix:{path}"):
        async with serve(tcp.server(f"unix:{path}", echo)):
            pass
    assert path.read_text() == "precious"


async def test_an_inherited_descriptor_is_served() -> None:
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        async with serve(tcp.server(f"fd:{inherited.fileno()}", echo)) as server:
            assert server.port == inherited.getsockname()[1]
            assert await answers("127.0.0.1", server.port)
        assert inherited.getsockname()  # it is still its owner's


async def test_a_bound_socket_that_does_not_listen_yet_is_served() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        async with serve(tcp.server(bound, echo)) as server:
            assert await answers("127.0.0.1", server.port)
        assert bound.fileno() >= 0


# What cannot be bound.


async def refusal(address: object) -> str:
    with pytest.raises(Exception) as caught:
        async with serve(tcp.server(address, echo)):  # type: ignore[arg-type]
            pass
    assert isinstance(caught.value, (OSError, ConfigError))
    return str(caught.value)


async def test_the_error_names_a_busy_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = await refusal(f"127.0.0.1:{port}")
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in message


async def test_the_error_names_an_address_of_another_machine() -> None:
    assert "cannot listen on 192.0.2.1 port 80" in await refusal("192.0.2.1:80")


async def test_the_error_names_a_name_without_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", none)
    assert "cannot listen on nowhere.example: Name or service not known" in await refusal(
        "nowhere.example:80"
    )


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("localhost", "expected HOST:PORT"),
        ("127.0.0.1:70000", "a port from 0 to 65535"),
        ("::1:80", "write an IPv6 address in brackets"),
        ("fd:x", "expected fd:NUMBER"),
        ("127.0.0.1:http", "HOST:PORT"),
    ],
)
async def test_an_invalid_address_is_an_error(address: str, says: str) -> None:
    message = await refusal(address)
    assert says in message and address in message


async def test_a_closed_descriptor_is_an_error() -> None:
    assert "cannot listen on fd:987654: Bad file descriptor" in await refusal("fd:987654")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="descriptors as on Linux")
async def test_a_descriptor_that_is_not_a_socket_is_an_error(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        assert f"cannot listen on fd:{file.fileno()}" in await refusal(f"fd:{file.fileno()}")


# Accepting.


class Gate:
    """A handler that takes a connection only when there is room."""

    def __init__(self, room: int) -> None:
        self.room = asyncio.Semaphore(room)
        self.begun = 0
        self.finish = asyncio.Event()

    async def ready(self) -> None:
        await self.room.acquire()
        self.room.release()

    async def __call__(self, stream: Stream) -> None:
        async with self.room:
            self.begun += 1
            await stream.write(b"begun")
            await self.finish.wait()


async def test_a_handler_that_is_not_ready_leaves_connections_in_the_queue() -> None:
    gate = Gate(2)
    async with serve(gate, listen="127.0.0.1:0") as server:
        streams = [await connect(Target("127.0.0.1", server.port)) for _ in range(4)]
        for stream in streams[:2]:
            assert await stream.read() == b"begun"
        for _ in range(100):
            await asyncio.sleep(0)
        assert gate.begun == 2 and len(server.shutdown) == 3  # the listener is one
        gate.finish.set()
        for stream in streams[2:]:
            assert await stream.read() == b"begun"
        for stream in streams:
            await stream.aclose()


async def test_every_ready_method_of_the_stack_is_awaited() -> None:
    asked: list[str] = []

    class Asks:
        def __init__(self, name: str, inner: object = None) -> None:
            self.name = name
            self.inner = inner

        async def ready(self) -> None:
            asked.append(self.name)

        async def __call__(self, stream: Stream) -> None:
            await stream.write(b"x")

    async with serve(Asks("outer", Asks("inner")), listen="127.0.0.1:0") as server:
        stream = await connect(Target("127.0.0.1", server.port))
        assert await stream.read() == b"x"
        await stream.aclose()
    assert asked[:2] == ["outer", "inner"]


async def test_a_storm_of_connections_is_served() -> None:
    async with serve(echo, listen="127.0.0.1:0") as server, asyncio.TaskGroup() as group:
        results = [group.create_task(answers("127.0.0.1", server.port)) for _ in range(300)]
    assert all(task.result() for task in results)


async def test_a_client_that_disconnects_before_accept_is_harmless() -> None:
    async with serve(echo, listen="127.0.0.1:0") as server:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert await answers("127.0.0.1", server.port)


async def test_queued_connections_are_closed_on_cancellation() -> None:
    clients: list[socket.socket] = []
    with pytest.raises(ValueError, match="enough"):
        async with serve(tcp.server("127.0.0.1:0", echo)) as server:
            clients += [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
            raise ValueError("enough")  # before any of them was accepted
    for each in clients:
        with each:
            each.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                assert each.recv(1) == b""


async def test_accepted_connections_have_nodelay() -> None:
    nodelay: list[object] = []

    async def look(stream: Stream) -> None:
        assert isinstance(stream, SocketStream)
        nodelay.append(stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    async with serve(look, listen="127.0.0.1:0") as server:
        stream = await connect(Target("127.0.0.1", server.port))
        assert await stream.read() == b""
        await stream.aclose()
    assert nodelay == [1]


SHORT_OF_DESCRIPTORS = """
    import asyncio, logging, os, resource, socket, time
    from llama import serve
    logging.basicConfig(format="%(levelname)s %(message)s")

    async def echo(stream):
        while data := await stream.read():
            await stream.write(data)

    async def main():
        loop = asyncio.get_running_loop()
        async with serve(echo, listen="127.0.0.1:0") as server:
            clients = []
            for _ in range(30):
                client = socket.socket()
                client.setblocking(False)
                await loop.sock_connect(client, ("127.0.0.1", server.port))
                clients.append(client)
            used = len(os.listdir("/proc/self/fd"))
            # room for some of the other ends only
            for client in clients:
                await loop.sock_sendall(client, b"hi")
            await asyncio.gather(*(loop.sock_recv(client, 10) for client in clients))
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            highest = max(map(int, os.listdir("/proc/self/fd")))
            late = [socket.socket() for _ in range(10)]
            for client in late:
                client.setblocking(False)
            highest = max(map(int, os.listdir("/proc/self/fd")))
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 5, hard))
            for client in late:
                await loop.sock_connect(client, ("127.0.0.1", server.port))
                await loop.sock_sendall(client, b"late")
            started, burnt = time.monotonic(), time.process_time()
            await asyncio.sleep(1)
            busy = (time.process_time() - burnt) / (time.monotonic() - started)
            print("busy" if busy > 0.3 else "calm")
            for client in clients:  # old connections still work, and then make room
                await loop.sock_sendall(client, b"again")
                assert await loop.sock_recv(client, 10) == b"again"
                client.close()
            async with asyncio.timeout(5):
                answers = await asyncio.gather(*(loop.sock_recv(client, 10) for client in late))
            print("served", answers.count(b"late"))
            for client in late:
                client.close()

    asyncio.run(main())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc")
def test_out_of_descriptors_the_listener_pauses_and_recovers() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SHORT_OF_DESCRIPTORS)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.split() == ["calm", "served", "10"], done.stderr
    assert 1 <= done.stderr.count("ERROR") <= 5, done.stderr  # not one for each try
    assert "accepting is paused: [Errno 24] Too many open files" in done.stderr


async def test_a_datagram_socket_cannot_listen() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets:
        for address in (packets, f"fd:{packets.fileno()}"):
            assert f"cannot listen on fd:{packets.fileno()}" in await refusal(address)


async def test_a_server_can_inherit_the_sockets_of_another() -> None:
    first = tcp.server("127.0.0.1:0", echo)
    sockets = first.bind(reuse_port=hasattr(socket, "SO_REUSEPORT"))
    try:
        again = first.bind(reuse_port=hasattr(socket, "SO_REUSEPORT"), same_ports_as=sockets)
        try:
            assert [each.getsockname() for each in again] == [each.getsockname() for each in sockets]
        finally:
            for each in again:
                each.close()
    finally:
        for each in sockets:
            each.close()


def test_the_repr_is_the_source_form() -> None:
    assert repr(tcp.server("127.0.0.1:80", echo)) == "tcp.server(127.0.0.1:80)"
    assert tcp.server(("::1", 80), echo).address == "[::1]:80"
    assert tcp.server(8080, stack(echo)).address == "8080"
