"""`leaf.py LISTEN`: sends back what it gets."""

import asyncio
import sys

from llama import Stream, serve


async def echo(stream: Stream) -> None:
    """Every byte, as it comes."""
    while data := await stream.read():
        await stream.write(data)


async def main() -> None:
    async with serve(echo, listen=sys.argv[1]):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
