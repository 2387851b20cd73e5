from dataclasses import dataclass

import pytest

from llama import Extensions, PeerAddress


@dataclass(frozen=True)
class User:
    name: str


def test_a_value_is_found_by_its_type() -> None:
    extensions = Extensions(User("john"), PeerAddress("192.0.2.1", 5))
    assert extensions[User].name == "john"
    assert extensions.get(PeerAddress) == ("192.0.2.1", 5)
    assert User in extensions and len(extensions) == 2


def test_a_missing_value_is_a_key_error_or_none() -> None:
    extensions = Extensions()
    assert extensions.get(User) is None and User not in extensions
    with pytest.raises(KeyError):
        extensions[User]


def test_a_type_has_one_value() -> None:
    extensions = Extensions(User("john"))
    extensions.set(User("mary"))
    assert extensions[User].name == "mary" and len(extensions) == 1


def test_a_subclass_is_a_separate_key() -> None:
    class Admin(User):
        pass

    extensions = Extensions(Admin("root"))
    assert User not in extensions and extensions[Admin].name == "root"


def test_a_fork_is_independent_of_its_origin() -> None:
    first = Extensions(User("john"))
    second = first.fork()
    second.set(PeerAddress("192.0.2.1", 5))
    second.set(User("mary"))
    first.discard(User)
    first.discard(User)
    assert list(first) == []
    assert second[User].name == "mary" and PeerAddress in second


def test_the_repr_shows_the_values() -> None:
    assert repr(Extensions(User("john"), 5)) == "Extensions(User(name='john'), 5)"
