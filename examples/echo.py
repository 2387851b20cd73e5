"""An echo server: a handler is any async function of a stream."""

from llama import Stream, run, stack, timeout


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


run(stack(timeout(5), echo), listen="127.0.0.1:7007")
