"""Looking inside, good and bad. Read by the type checkers only."""

from functools import partial

from llama import ConnectionHandler, Relay, Stream, http, layer, mitm, socks5, stack, tcp, timeout, tls, ws
from llama.http import Request, RequestHandler, Response
from llama.mitm import Action, CertificateAuthority, Chunk, ConnectionInfo, Recorded


@layer
async def hook(request: Request, inner: RequestHandler) -> Response:
    response = await inner(request)
    response.body = response.body.replace(b"cloud", b"llama")
    return response


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


def rule(asked: ConnectionInfo) -> Action | None:
    return "block" if asked.target.port == 25 else None


async def chunks(chunk: Chunk) -> bytes:
    return chunk.data.upper()


def shout(message: ws.Message) -> ws.Message | None:
    return message


def sink(recorded: Recorded) -> None:
    print(recorded.url, recorded.status)


def good(ca: CertificateAuthority) -> None:
    handler: ConnectionHandler = stack(
        http.server(), mitm.proxy(ca, hook, mitm.record("a.har"), deny=["*:25"])
    )
    relay: Relay = mitm.relay(
        ca, hook, ws.inspect(shout), http.set_header("a", "b"), rules=[rule], on_chunk=chunks
    )
    relay = mitm.relay(ca, verify="ca.pem", server=http.server(idle_timeout=5), pinning=mitm.Pinning(2))
    relay = mitm.relay(ca, tls=partial(tls.connect, cert="client.pem"), rules=[mitm.block(sni=["*.example"])])
    handler = socks5.server(connect=mitm.lazy_connect(), relay=relay)
    handler = tcp.transparent(relay=relay)
    handler = tcp.forward("a:1", relay=stack(timeout(5), relay))
    exchange: RequestHandler = stack(
        mitm.record(sink), mitm.faults(latency=1), mitm.throttle(download=9), http.client()
    )
    exchange = stack(
        mitm.map_remote({"http://a/": "http://b/"}), mitm.replay_server("a.har", otherwise=exchange)
    )
    handler = stack(http.server(), mitm.replay_layer("a.har", strict=True), exchange)
    _ = handler


def bad(ca: CertificateAuthority) -> None:
    handler: ConnectionHandler
    handler = mitm.proxy(ca, hook)  # expect: error
    handler = stack(mitm.proxy(ca), echo)  # expect: error
    handler = socks5.server(relay=mitm.proxy(ca))  # expect: error
    _ = mitm.relay(hook)  # expect: error
    _ = mitm.relay(ca, echo)  # expect: error
    _ = mitm.relay(ca, tcp.connection_limit(5))  # expect: error
    _ = mitm.relay(ca, default="look")  # expect: error
    _ = mitm.relay(ca, verfy=True)  # expect: error
    _ = mitm.proxy(ca, chunks=shout)  # expect: error
    _ = mitm.proxy(ca, rules=[hook])  # expect: error
    _ = handler
