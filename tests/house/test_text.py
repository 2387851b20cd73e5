"""What no committed file may hold."""

import re

import pytest

from tests.house.project import ROOT, committed, modules

pytestmark = pytest.mark.house

# Spelled in pieces, so that this file does not hold what it forbids.
HOSTS = ("py" + "pi.org", "python" + "hosted.org", "npm" + "js.", "deb" + ".debian.org")
MACHINE = re.compile(r"(?<![\w.])/(" + "ro" + "ot|wo" + r"rk|home/\w+|Users/\w+)/")
UNFINISHED = re.compile(r"NotImplementedError|TODO|FIXME|XXX\b|pragma: no cover|type: ignore(?!\[)")


def test_no_file_names_a_package_host_or_a_machine_path() -> None:
    for path in committed():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            where = f"{path.relative_to(ROOT)}:{number}"
            assert not any(host in line for host in HOSTS), f"{where} names a package host: {line.strip()}"
            assert not MACHINE.search(line), f"{where} names a path of one machine: {line.strip()}"


def test_nothing_in_the_sources_is_unfinished_or_silenced() -> None:
    for module in modules():
        for number, line in enumerate(module.text.splitlines(), 1):
            assert not UNFINISHED.search(line), f"{module.path.relative_to(ROOT)}:{number}: {line.strip()}"
