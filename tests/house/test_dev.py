"""dev.py: it finds interpreters by running them, and an environment knows when it is out of date."""

import os
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dev
from tests.house.project import ROOT

pytestmark = pytest.mark.house


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_this_interpreter_is_probed_by_running_it() -> None:
    found = dev.probe(sys.executable)
    assert found is not None
    assert found.version == sys.version_info[:3]
    assert str(found) == "CPython " + ".".join(map(str, sys.version_info[:3]))


@pytest.mark.skipif(os.name == "nt", reason="writes shell scripts")
@pytest.mark.parametrize(
    "text",
    [
        "echo 'pyenv: python3.12: command not found' >&2; exit 127",
        "echo not json",
        """echo '{"path": "/p", "version": [3, 10, 9], "suitable": true, "makes_venvs": true}'""",
        """echo '{"path": "/p", "version": [3, 13, 1], "suitable": false, "makes_venvs": true}'""",
    ],
    ids=["a shim that fails", "no Python at all", "too old", "a free-threaded or a preview build"],
)
def test_a_candidate_that_will_not_do_is_left_out(tmp_path: Path, text: str) -> None:
    assert dev.probe(script(tmp_path / "python3", text)) is None


def test_a_candidate_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    assert dev.probe(str(tmp_path / "python3")) is None


def test_paths_that_name_an_older_version_are_not_tried() -> None:
    for path in (
        "/usr/bin/python3.9",
        "/v/3.10.13/bin/python3",
        "/shims/python3.10",
        "/v/3.6.15/bin/python3",
    ):
        assert dev.TOO_OLD.search(path), path
    for path in (
        "/usr/bin/python3",
        "/v/3.13.0/bin/python3",
        "/usr/bin/python3.11",
        "/v/3.14.10/bin/python3",
    ):
        assert not dev.TOO_OLD.search(path), path


def python(version: tuple[int, int, int], path: str, makes_venvs: bool = True) -> dev.Python:
    return dev.Python(version, makes_venvs, path)


def offer(monkeypatch: pytest.MonkeyPatch, *found: dev.Python) -> None:
    by_path = {each.path: each for each in found}
    monkeypatch.setattr(dev, "candidates", lambda: list(by_path))
    monkeypatch.setattr(dev, "probe", by_path.get)


def test_one_interpreter_for_each_minor_version_newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    older, newer = python((3, 11, 2), "/a"), python((3, 11, 10), "/b")
    newest, crippled = python((3, 14, 0), "/c"), python((3, 13, 9), "/d", makes_venvs=False)
    offer(monkeypatch, older, newest, crippled, newer)
    assert dev.pythons() == [newest, newer]


def test_an_interpreter_that_can_make_environments_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    crippled, able = python((3, 11, 9), "/a", makes_venvs=False), python((3, 11, 2), "/b")
    offer(monkeypatch, crippled, able)
    assert dev.pythons() == [able]


def test_what_is_missing_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch)
    with pytest.raises(dev.Missing, match=r"^No CPython 3\.11 or later was found"):
        dev.pythons()
    offer(monkeypatch, python((3, 11, 2), "/a", makes_venvs=False))
    with pytest.raises(dev.Missing, match=r"^Python has no venv: apt install python3-venv$"):
        dev.pythons()


def test_the_command_line_says_it_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(monkeypatch)
    monkeypatch.setattr(dev, "Venv", Unready)
    monkeypatch.setattr(sys, "argv", ["dev.py", "test"])
    assert dev.main() == 1
    assert capsys.readouterr().err.count("\n") == 1


class Unready(dev.Venv):
    def __init__(self, folder: str) -> None:
        super().__init__(folder + "-never")

    def is_ready(self, group: str) -> bool:
        return False


@pytest.mark.skipif(os.name == "nt", reason="needs a link")
def test_an_environment_is_ready_until_what_it_was_made_of_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dev, "ROOT", str(tmp_path))
    (tmp_path / "requirements").mkdir()
    (tmp_path / "pyproject.toml").write_text("[project]")
    for group in ("run", "test"):
        (tmp_path / "requirements" / f"{group}.txt").write_text("click==1")
    venv = dev.Venv(".venv")
    assert not venv.is_ready("test")
    os.makedirs(os.path.dirname(venv.python))
    os.symlink(sys.executable, venv.python)
    Path(venv.stamp("test")).write_text(dev.fingerprint("test"))
    assert venv.is_ready("test")
    assert not venv.is_ready("run")
    (tmp_path / "requirements" / "run.txt").write_text("click==2")
    assert not venv.is_ready("test")


def test_every_task_is_in_the_makefile_and_says_what_it_does() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name, task in dev.TASKS.items():
        assert re.search(rf"^[a-z ]*\b{name}\b[a-z ]*:", makefile, re.MULTILINE), f"make {name}"
        assert task.__doc__
        assert "\n" not in task.__doc__


def test_dev_py_needs_the_standard_library_only_and_starts_on_older_pythons() -> None:
    source = (ROOT / "dev.py").read_text(encoding="utf-8")
    imported = re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE)
    assert set(imported) <= sys.stdlib_module_names
    help = subprocess.run(
        [sys.executable, "-S", "-E", str(ROOT / "dev.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pytest on the newest Python" in help.stdout


def pins(group: str) -> dict[str, str]:
    """The pinned versions of a requirements file and of those it includes."""
    found: dict[str, str] = {}
    for line in (ROOT / dev.requirements(group)).read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            found |= pins(line.removeprefix("-r ").removesuffix(".txt"))
        elif line and not line.startswith("#"):
            pinned = re.fullmatch(r"([A-Za-z0-9_.-]+)==([0-9.]+)( ; .*)?", line)
            assert pinned, f"{group}.txt: {line}: a plain pin is NAME==VERSION"
            found[pinned[1].lower().replace("_", "-")] = pinned[2]
    return found


def test_requirements_are_plain_pins_of_what_the_project_declares() -> None:
    with open(ROOT / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)
    declared = {"run": project["project"]["dependencies"], **project["dependency-groups"]}
    for group, requirements in declared.items():
        if not requirements:
            continue
        names = {re.split(r"[\[>=<]", each)[0] for each in requirements if isinstance(each, str)}
        assert names <= set(pins(group)), f"requirements/{group}.txt lacks {names - set(pins(group))}"
