"""Who may talk to the service is whom our own authority has given a certificate."""

from llama import Stream, run, stack, tls


async def whoami(stream: Stream) -> None:
    certificate = stream.extensions[tls.TLSInfo].peer_certificate or {}
    subject = dict(part[0] for part in certificate["subject"])
    await stream.write(f"you are {subject['commonName']}\n".encode())


run(
    stack(
        tls.server("cert.pem", "key.pem", client_ca="ca.pem", client_auth="required"),
        whoami,
    ),
    listen=":8443",
)
