"""Header fields keep order, case and duplicates, and are looked up without case."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama.http._messages.headers import Headers, headers_from_wire, headers_of_lines

PAIRS = [("Host", "a"), ("Cookie", "b=c"), ("X-A", "1"), ("cookie", "d=e"), ("x-a", "2")]


def test_pairs_are_preserved() -> None:
    headers = Headers(PAIRS)
    assert list(headers) == PAIRS
    assert len(headers) == 5
    assert headers.names == ["host", "cookie", "x-a", "cookie", "x-a"]


def test_fields_come_from_a_mapping_too() -> None:
    assert list(Headers({"A": "b"})) == [("A", "b")]


def test_names_are_looked_up_without_case() -> None:
    headers = Headers(PAIRS)
    assert headers["COOKIE"] == "b=c"
    assert headers.get("Cookie") == "b=c"
    assert headers.get_all("cookie") == ["b=c", "d=e"]
    assert "hOST" in headers
    assert "none" not in headers
    assert 5 not in headers
    assert headers.get("none") is None
    assert headers.get("none", "x") == "x"
    assert headers.get_all("none") == []
    with pytest.raises(KeyError):
        headers["none"]


def test_setting_a_field_replaces_all_at_the_position_of_the_first() -> None:
    headers = Headers(PAIRS)
    headers["COOKIE"] = "f=g"
    assert list(headers) == [("Host", "a"), ("COOKIE", "f=g"), ("X-A", "1"), ("x-a", "2")]
    headers["New"] = "h"
    assert list(headers)[-1] == ("New", "h")
    assert headers.names == ["host", "cookie", "x-a", "x-a", "new"]


def test_adding_keeps_the_others() -> None:
    headers = Headers({"A": "b"})
    headers.add("a", "c")
    headers.extend([("B", "d")])
    headers.insert(0, "C", "e")
    assert list(headers) == [("C", "e"), ("A", "b"), ("a", "c"), ("B", "d")]
    assert headers.get_all("A") == ["b", "c"]


def test_deleting_removes_all_of_a_name() -> None:
    headers = Headers(PAIRS)
    del headers["X-a"]
    assert headers.names == ["host", "cookie", "cookie"]
    with pytest.raises(KeyError):
        del headers["X-a"]
    assert not headers.discard("x-a")
    assert headers.discard("x-a", "Host", "COOKIE")
    assert list(headers) == []


def test_setdefault_keeps_an_existing_field() -> None:
    headers = Headers({"A": "b"})
    assert headers.setdefault("a", "c") == "b"
    assert headers.setdefault("d", "e") == "e"
    assert list(headers) == [("A", "b"), ("d", "e")]


def test_lists_are_split_over_all_fields() -> None:
    headers = Headers([("Connection", "Keep-Alive, ,X"), ("connection", "close")])
    assert headers.tokens("Connection") == ["keep-alive", "x", "close"]
    assert headers.tokens("none") == []


def test_a_copy_is_independent() -> None:
    headers = Headers(PAIRS)
    copy = headers.copy()
    copy["Host"] = "b"
    assert headers["Host"] == "a"
    assert copy != headers
    assert headers == Headers(PAIRS)
    assert Headers({"a": "b"}) == Headers({"A": "b"})
    assert Headers() != []
    assert repr(Headers({"a": "b"})) == "Headers([('a', 'b')])"


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\rb", "a\0b", "\x1b", "\x7f", "\u20ac"])
def test_an_invalid_value_is_rejected(value: str) -> None:
    headers = Headers({"a": "b"})
    with pytest.raises(ValueError, match="header value"):
        headers["a"] = value
    with pytest.raises(ValueError, match="header value"):
        headers.add("a", value)
    with pytest.raises(ValueError, match="header value"):
        headers.insert(0, "a", value)
    with pytest.raises(ValueError, match="header value"):
        Headers({"a": value})
    assert list(headers) == [("a", "b")]


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\n", "\xe4", "a\0", "(a)"])
def test_an_invalid_name_is_rejected(name: str) -> None:
    with pytest.raises(ValueError, match="header name"):
        Headers()[name] = "b"


def test_values_lose_outer_whitespace_and_keep_bytes_above_ascii() -> None:
    assert Headers({"a": " b\t c \t"})["a"] == "b\t c"
    assert Headers({"a": "\xa0\xe4\xff"})["a"] == "\xa0\xe4\xff"


def test_headers_take_ownership_of_a_parsers_lists() -> None:
    lines, names = ["A: b"], ["a"]
    headers = headers_of_lines(lines, names)
    headers.add("C", "d")
    assert lines == ["A: b", "C: d"]
    assert names == ["a", "c"]
    assert headers == headers_from_wire([("A", "b"), ("C", "d")], ["a", "c"])


NAMES = st.sampled_from(["a", "A", "b", "B", "c"])
STEPS = st.lists(
    st.tuples(st.sampled_from(["set", "add", "discard", "insert"]), NAMES, st.text("xyz", max_size=2))
)


@given(STEPS)
def test_the_names_always_match_the_pairs(steps: list[tuple[str, str, str]]) -> None:
    headers = Headers()
    model: list[tuple[str, str]] = []
    for step, name, value in steps:
        same = [pair for pair in model if pair[0].lower() == name.lower()]
        if step == "add" or (step == "set" and not same):
            model.append((name, value))
        elif step == "insert":
            model.insert(0, (name, value))
        elif step == "discard":
            model = [pair for pair in model if pair not in same]
        else:
            first = model.index(same[0])
            model = [p for i, p in enumerate(model) if i <= first or p[0].lower() != name.lower()]
            model[first] = (name, value)
        if step == "set":
            headers[name] = value
        elif step == "insert":
            headers.insert(0, name, value)
        elif step == "add":
            headers.add(name, value)
        else:
            headers.discard(name)
        assert list(headers) == model
        assert headers.names == [n.lower() for n, _ in model]
