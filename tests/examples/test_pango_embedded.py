from pathlib import Path

from llama import tls
from tests.examples.conftest import Start
from tests.examples.helpers import service


def test_two_services_take_turns_within_a_program(
    example: Start, authority: tls.CertificateAuthority, tmp_path: Path
) -> None:
    authority.issue("localhost").write(tmp_path)
    with service(bytes.upper) as first, service(lambda data: data[::-1]) as second:
        running = example("pango_embedded", {8081: first, 8082: second})
        assert running.output() == "b'HELLO'\nb'olleh'\n"
        assert running.process.returncode == 0
