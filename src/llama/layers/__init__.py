"""Layers and services of any kind, re-exported by `llama`."""

from llama.layers._close import close
from llama.layers._concurrency_limit import concurrency_limit
from llama.layers._predicate import Predicate
from llama.layers._rate_limit import rate_limit
from llama.layers._retry import retry
from llama.layers._route import route
from llama.layers._timeout import timeout
from llama.layers._trace import trace

__all__ = ["Predicate", "close", "concurrency_limit", "rate_limit", "retry", "route", "timeout", "trace"]
