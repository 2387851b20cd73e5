"""How soon the other side of an HTTP exchange sees that one side has left, by the clock.

A connection is armed to report its client's end once an exchange has run for a while: one line is for
exchanges that have, one for those that have just begun.
"""

from benchmarks.harness import Case, told
from benchmarks.http_peers import llama_reverse

ORDER = 80


def _case(name: str, what: str, direction: str, figure: str, amount: int, hold: float) -> Case:
    sample = told("cancel", figure, amount=amount, direction=direction, hold=hold)
    return Case(name, what, "ms", {"llama": llama_reverse}, sample, "none", rounds=1, warm_ups=0)


CASES = [
    _case("cancel-up", "client leaves a stream: upstream sees it, median", "up", "median", 400, 0.2),
    _case("cancel-up-longest", "the same, longest of 400", "up", "longest", 400, 0.2),
    _case("cancel-young", "client leaves at the first bytes, longest of 40", "up", "longest", 40, 0),
    _case("cancel-down", "upstream breaks off: client sees it, median", "down", "median", 400, 0.2),
    _case("cancel-down-longest", "the same, longest of 400", "down", "longest", 400, 0.2),
]
