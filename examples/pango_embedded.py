"""pango within a program of one's own: TLS in front of two services, for as long as the block runs."""

import asyncio

import pango
from llama import Target, tls


async def main() -> None:
    async with pango.serve(
        to=["127.0.0.1:8081", "127.0.0.1:8082"], listen="127.0.0.1:8443", cert="cert.pem", key="key.pem"
    ) as server:
        for _ in range(2):
            stream = await tls.connect(ca="ca.pem")(Target("localhost", server.port))
            await stream.write(b"hello")
            print(await stream.read())
            await stream.aclose()


asyncio.run(main())
