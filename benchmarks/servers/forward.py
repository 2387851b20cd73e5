"""`forward.py LISTEN TO`: forwards connections, without TLS."""

import asyncio
import sys

from llama import serve, tcp


async def main() -> None:
    async with serve(tcp.forward(sys.argv[2]), listen=sys.argv[1]):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
