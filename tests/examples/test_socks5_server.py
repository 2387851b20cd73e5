from tests.examples.conftest import Start
from tests.examples.helpers import client, service


def test_john_gets_through_but_not_to_mail(example: Start) -> None:
    running = example("socks5_server")
    with service(lambda asked: b"hello " + asked) as port:
        with client(running.port(1080)) as sock:
            sock.sendall(b"\x05\x01\x02")
            assert sock.recv(2) == b"\x05\x02"
            sock.sendall(b"\x01\x04john\x06secret")
            assert sock.recv(2) == b"\x01\x00"
            sock.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big"))
            assert sock.recv(10)[:2] == b"\x05\x00"
            sock.sendall(b"john")
            assert sock.recv(10) == b"hello john"
        with client(running.port(1080)) as sock:
            sock.sendall(b"\x05\x01\x02\x01\x04john\x06secret\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x19")
            answer = b""
            while more := sock.recv(100):
                answer += more
            assert answer[:6] == b"\x05\x02\x01\x00\x05\x02"
    running.stop()
