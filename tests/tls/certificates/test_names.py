"""Server names and the tables that are keyed by them."""

import re

import pytest

from llama._core.errors import ConfigError
from llama.tls._certificates.names import NameTable, is_host_name, to_ascii


def test_an_exact_name_comes_before_a_wildcard_and_a_wildcard_before_the_default() -> None:
    table = NameTable({"*.b.example": "any", "a.b.example": "exact", "c.example": "other"}, default="default")
    assert table.lookup("a.b.example") == "exact"
    assert table.lookup("x.b.example") == "any"
    assert table.lookup("c.example") == "other"
    assert table.lookup("d.example") == "default"
    assert table.lookup(None) == "default"


def test_a_wildcard_stands_for_one_label() -> None:
    table = NameTable({"*.b.example": 1})
    assert table.lookup("a.b.example") == 1
    assert table.lookup("b.example") is None
    assert table.lookup("x.a.b.example") is None


def test_case_and_a_trailing_dot_are_ignored() -> None:
    table = NameTable({"A.Example.": 1, "*.B.example": 2})
    assert table.lookup("a.EXAMPLE") == 1
    assert table.lookup("x.b.example.") == 2


def test_non_ascii_names_are_compared_as_a_labels() -> None:
    table = NameTable({"bücher.example": 1, "*.Bücher.example": 2})
    assert table.lookup("xn--bcher-kva.example") == 1
    assert table.lookup("www.xn--bcher-kva.example") == 2


def test_without_a_default_nothing_is_found() -> None:
    table: NameTable[int] = NameTable({})
    assert table.lookup("a.example") is None
    assert table.lookup(None) is None
    assert len(table) == 0


def test_items_returns_normalized_patterns() -> None:
    table = NameTable({"*.B.example": 2, "A.example": 1}, default=0)
    assert table.items() == [("a.example", 1), ("*.b.example", 2)]
    assert (len(table), table.default) == (2, 0)
    assert repr(table) == "NameTable(a.example, *.b.example; default 0)"


def test_the_table_copies_its_input() -> None:
    patterns = {"a.example": 1}
    table = NameTable(patterns)
    patterns["b.example"] = 2
    assert table.lookup("b.example") is None


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("*.*.x", "'*.*.x' is not a name pattern: '*' matches one whole label, the first"),
        ("a.*.x", "'a.*.x' is not a name pattern: '*' matches one whole label, the first"),
        ("a*.x", "'a*.x' is not a name pattern: '*' matches one whole label, the first"),
        ("*", "'*' is not a name pattern: give a default for every other name"),
        ("", "'' is not a name pattern: give a default for every other name"),
        (".a.example", "'.a.example' is not a name pattern: write 'a.example' and '*.a.example'"),
        ("127.0.0.1", "'127.0.0.1' is not a name pattern: clients send no name for an address or a port"),
        (
            "a.example:443",
            "'a.example:443' is not a name pattern: clients send no name for an address or a port",
        ),
        ("a b", "'a b' is not a name pattern: a label has 1 to 63 letters, digits and inner hyphens"),
        ("*.", "'*.' is not a name pattern: a label has 1 to 63 letters, digits and inner hyphens"),
        ("ü" * 70, "is not a name pattern: a label has 1 to 63"),
    ],
)
def test_a_bad_pattern_is_rejected_with_a_reason(pattern: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(reason)):
        NameTable({pattern: 1})


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=re.escape("'A.example' is given twice")):
        NameTable({"a.example": 1, "A.example": 2})


@pytest.mark.parametrize(
    "name", ["a", "a.example", "a-b.c--d", "_dmarc.a.example", "a" * 63, "1.a", "0x.example"]
)
def test_host_names(name: str) -> None:
    assert is_host_name(name)
    assert to_ascii(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "a.", "A", "-a", "a-", "a" * 64, "a." * 126 + "aa", "1.2.3.4", "a.1", "a.0x1f", "a\n", "ß"],
)
def test_invalid_host_names(name: str) -> None:
    assert not is_host_name(name)


@pytest.mark.parametrize("name", ["", "a..b", "ü..b", "a/b", "1.2.3.4", "ü" * 70])
def test_a_name_without_an_ascii_form_is_a_value_error(name: str) -> None:
    with pytest.raises(ValueError, match="is not a host name"):
        to_ascii(name)
