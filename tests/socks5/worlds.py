"""What is on the other side of a proxy in these tests."""

from llama import LocalAddress, Shutdown, Stream, Target, testing


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)
    await stream.write_eof()


class Echoes:
    """A connector that reaches an echo at every target, and keeps the targets."""

    def __init__(self) -> None:
        self.targets: list[Target] = []

    async def __call__(self, target: Target, /) -> Stream:
        self.targets.append(target)
        here, there = testing.memory_pair()
        Shutdown.current().spawn(_serve(there))
        return here


async def _serve(stream: Stream) -> None:
    try:
        await echo(stream)
        await stream.aclose()
    except OSError:
        pass
    finally:
        stream.abort()


class Fails:
    """A connector that raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def __call__(self, target: Target, /) -> Stream:
        raise self.error


def on_loopback() -> tuple[Stream, Stream]:
    """Streams in memory of a client that came in at a loopback address."""
    client, server = testing.memory_pair()
    server.extensions.set(LocalAddress("127.0.0.1", 1080))
    return client, server
