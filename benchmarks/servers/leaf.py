"""`leaf.py LISTEN [CERT KEY]`: sends back what it gets, over TLS where a certificate is given."""

import sys

from llama import Stream, run, stack, tls


async def echo(stream: Stream) -> None:
    """Every byte, as it comes."""
    while data := await stream.read():
        await stream.write(data)


if __name__ == "__main__":
    run(stack(tls.server(sys.argv[2], sys.argv[3]), echo) if sys.argv[2:] else echo, listen=sys.argv[1])
