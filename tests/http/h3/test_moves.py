"""Where packets go while a client moves."""

import pytest

pytest.importorskip("qh3")

from llama.http._h3_moves import Moves

HOME = ("192.0.2.1", 4433)


def test_another_host_gets_three_times_what_it_sent_until_it_has_answered() -> None:
    moves, there = Moves(HOME), ("198.51.100.7", 4433)
    assert moves.where(HOME, 1200) == HOME
    moves.heard(there, 400)
    assert [moves.where(HOME, size) for size in (700, 500, 1, 0)] == [there, there, HOME, there]
    moves.settled(there)
    assert moves.where(there, 100_000) == there


def test_another_port_of_the_same_host_is_taken_for_it() -> None:
    moves, there = Moves(HOME), (HOME[0], 4434)
    moves.heard(there, 30)
    assert moves.where(HOME, 1200) == there
    moves.settled(HOME)
    assert moves.where(HOME, 1200) == HOME
