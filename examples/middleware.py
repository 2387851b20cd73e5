"""An echo server of one function, with a layer of another around it."""

from llama import ConnectionHandler, Stream, layer, run, stack


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


@layer
async def greet(stream: Stream, inner: ConnectionHandler) -> None:
    await stream.write(b"say something\n")
    await inner(stream)
    await stream.write(b"goodbye\n")


run(stack(greet, echo), listen="127.0.0.1:7007")
