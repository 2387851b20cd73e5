"""The arithmetic of the benchmarks and the table that they write; nothing is timed."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest

from benchmarks.clock import cpu_seconds, family
from benchmarks.harness import Case, Result, Running, measure
from benchmarks.peers import Missing, Place, module, program
from benchmarks.profile import summary
from benchmarks.report import document, figure, outcome, table


def result(samples: dict[str, list[float]], bound: float | None = 0.9) -> Result:
    case = Case("a", "a case", "us", peers={}, sample=lambda running: 0.0, bound=bound)
    return Result(case, samples)


def test_the_ratio_is_the_median_of_the_rounds_and_not_the_ratio_of_the_medians() -> None:
    measured = result({"HAProxy": [1.0, 10.0, 100.0], "llama": [2.0, 5.0, 50.0]})
    assert measured.ratios == [2.0, 0.5, 0.5]
    assert measured.ratio == 0.5
    assert measured.met


def test_the_better_setting_is_the_one_compared_with() -> None:
    measured = result(
        {"HAProxy": [4.0, 4.0, 1.0], "HAProxy splice-auto": [2.0, 2.0, 9.0], "llama": [3.0, 3.0, 3.0]}
    )
    assert measured.other == "HAProxy splice-auto"
    assert measured.ratio == 1.5
    assert measured.met is False


def test_a_case_without_a_bound_is_neither_met_nor_missed() -> None:
    assert result({"HAProxy": [1.0], "llama": [2.0]}, bound=None).met is None


def test_ours_alone_has_no_ratio() -> None:
    measured = result({"llama": [2.0, 3.0]})
    assert (measured.other, measured.ratio, measured.met) == (None, None, None)
    assert outcome(measured) == "llama 2.50 us (bound 0.9)"


def test_the_peer_that_the_bound_is_about_is_compared_with_though_another_is_better() -> None:
    case = Case(
        "a", "a case", "us", peers={}, sample=lambda running: 0.0, bound=1.0, against="slow", rounds=1
    )
    assert Result(case, {"quick": [1.0], "slow": [4.0], "llama": [2.0]}).ratio == 0.5
    assert Result(case, {"quick": [1.0], "llama": [2.0]}).ratio is None


def test_a_peer_that_is_not_installed_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.harness.start", start_all_but("other"))
    case = Case("a", "a case", "us", {"other": command, "llama": command}, lambda running: 2.0, rounds=1)
    measured = measure(case)
    assert (measured.samples, measured.missing) == ({"llama": [2.0]}, ("other",))
    assert outcome(measured) == "llama 2.00 us; not installed: other"
    assert "| other: not installed |" in table([measured])
    assert "- not installed, and so left out: other\n" in document([measured], about="", notes="")


def command(place: Place) -> list[str]:
    return []


def start_all_but(absent: str) -> Callable[..., Running]:
    def start(stack: ExitStack, case: Case, name: str, folder: Path, *, quick: bool) -> Running:
        if name == absent:
            raise Missing(name)
        return cast(Running, name)

    return start


def test_a_program_or_a_module_that_is_nowhere_is_missing() -> None:
    with pytest.raises(Missing, match="no-such-proxy is not installed"):
        program("no-such-proxy")
    with pytest.raises(Missing, match="json and no_such_loop is not installed"):
        module("json", "no_such_loop")
    assert module("json") == [sys.executable, "-m", "json"]


def test_the_table_says_what_ran_and_whether_the_bound_is_met() -> None:
    results = [
        result({"HAProxy": [2.0, 2.0], "llama": [1.0, 1.5]}),
        result({"HAProxy": [100.0], "llama": [123.4]}),
    ]
    assert table(results).splitlines() == [
        "| what   | unit | compared with | theirs | llama | ratio | of rounds    | bound | met    |",
        "|--------|------|---------------|--------|-------|-------|--------------|-------|--------|",
        "| a case | us   | HAProxy       | 2.00   | 1.25  | 0.62  | 0.50 to 0.75 | 0.9   | yes    |",
        "| a case | us   | HAProxy       | 100    | 123   | 1.23  |              | 0.9   | **no** |",
    ]


def test_figures_keep_three_digits() -> None:
    values = (0.0234, 0.4567, 15.84, 123.4, 1025.0)
    assert [figure(value) for value in values] == ["0.023", "0.46", "15.8", "123", "1025"]


def test_the_document_holds_the_notes_as_they_are_written() -> None:
    notes = "## Notes\n\n- *why* | so\n"
    text = document([result({"HAProxy": [1.0], "llama": [1.0]})], about="- a machine\n", notes=notes)
    assert text.startswith("# Results\n")
    assert "- a machine\n" in text
    assert text.endswith(notes)


def test_a_document_with_several_settings_lists_each() -> None:
    several = result({"HAProxy": [4.0], "HAProxy splice-auto": [2.0], "llama": [1.0]})
    assert "- a case, us: HAProxy 4.00, HAProxy splice-auto 2.00, llama 1.00\n" in document(
        [several], about="", notes=""
    )


def test_a_profile_counts_a_recursive_function_once() -> None:
    lines = summary(["main;walk;walk;recv 3", "main;walk 1"]).splitlines()
    assert lines[0] == "4 samples"
    assert lines[lines.index("own time") + 1] == " 75.0%  recv"
    assert "100.0%  walk" in lines


def test_the_clock_of_a_process_counts_its_work() -> None:
    before, mine = cpu_seconds(os.getpid()), time.process_time()
    sum(range(1_000_000))
    assert os.getpid() in family(os.getpid())
    assert cpu_seconds(os.getpid()) - before >= (time.process_time() - mine) * 0.5 > 0


def test_the_clock_goes_on_counting_a_child_that_has_ended() -> None:
    before = cpu_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", "sum(range(4_000_000))"], check=True)
    assert cpu_seconds(os.getpid()) - before >= 0.05
