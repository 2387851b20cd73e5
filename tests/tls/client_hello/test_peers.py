"""The ClientHellos of programs that people use."""

import shutil
import socket
import subprocess

import pytest

from llama.tls._client_hello.client_hello import ClientHello, HelloReader

pytestmark = pytest.mark.peer

PATIENCE = 20.0


def first_hello_of(*command: str) -> ClientHello:
    """Run a client against a socket that only listens; PORT in its arguments is replaced."""
    program = shutil.which(command[0])
    if program is None:
        pytest.skip(f"{command[0]} is not installed")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        port = str(server.getsockname()[1])
        arguments = [program, *(argument.replace("PORT", port) for argument in command[1:])]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet) as process:
            try:
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(PATIENCE)
                    return read_hello(connection)
            finally:
                process.kill()


def read_hello(connection: socket.socket) -> ClientHello:
    reader = HelloReader()
    while True:
        data = connection.recv(65536)
        assert data, "the client left before its ClientHello was whole"
        hello = reader.feed(data)
        if hello is not None:
            hello.validate()
            return hello


def test_curl() -> None:
    hello = first_hello_of(
        "curl", "-sk", "--connect-to", "a.example:443:127.0.0.1:PORT", "https://a.example/"
    )
    assert hello.server_name == "a.example"
    assert hello.alpn[-1] == "http/1.1"
    assert hello.ja4.startswith("t13d")


def test_openssl_with_a_name() -> None:
    command = "openssl s_client -connect 127.0.0.1:PORT -servername A.example -alpn h2,http/1.1"
    hello = first_hello_of(*command.split())
    assert (hello.server_name, hello.alpn) == ("a.example", ("h2", "http/1.1"))
    assert 0x0304 in hello.supported_versions


def test_openssl_without_a_name_and_with_tls_1_2_only() -> None:
    hello = first_hello_of(*["openssl", "s_client", "-connect", "127.0.0.1:PORT", "-noservername", "-tls1_2"])
    assert (hello.server_name, hello.alpn, hello.supported_versions) == (None, (), (0x0303,))
    assert (hello.key_share_groups, hello.psk, hello.grease, hello.ech) == ((), False, False, False)
    assert hello.ja4.startswith("t12i")
