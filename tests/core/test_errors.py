import pickle

import pytest

import llama
from llama import LlamaError

LEAVES = [
    llama.StreamClosedError,
    llama.StreamBusyError,
    llama.TruncatedError,
    llama.TooLargeError,
    llama.RefusedError,
    llama.OverloadedError,
    llama.UnreachableError,
    llama.ProtocolError,
    llama.TLSError,
    llama.ConfigError,
]


def test_the_error_tree_has_one_root_and_at_most_ten_leaves() -> None:
    assert set(LEAVES) == set(LlamaError.__subclasses__())
    public = [below for leaf in LEAVES for below in leaf.__subclasses__() if hasattr(llama, below.__name__)]
    assert not public


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (llama.StreamClosedError, ConnectionError),
        (llama.StreamBusyError, RuntimeError),
        (llama.TruncatedError, EOFError),
        (llama.TooLargeError, ValueError),
        (llama.RefusedError, PermissionError),
        (llama.UnreachableError, ConnectionError),
        (llama.ProtocolError, ValueError),
        (llama.TLSError, ConnectionError),
        (llama.ConfigError, ValueError),
    ],
)
def test_errors_derive_from_standard_library_exceptions(
    error: type[LlamaError], builtin: type[Exception]
) -> None:
    assert issubclass(error, builtin)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (llama.LlamaError, 500),
        (llama.ProtocolError, 400),
        (llama.RefusedError, 403),
        (llama.TooLargeError, 413),
        (llama.UnreachableError, 502),
        (llama.TLSError, 502),
        (llama.TruncatedError, 502),
        (llama.OverloadedError, 503),
    ],
)
def test_errors_have_an_http_status(error: type[LlamaError], status: int) -> None:
    assert error("so").status == status
    assert error("so", status=418).status == 418
    assert error("so").status == status


def test_errors_can_carry_retry_after() -> None:
    assert llama.OverloadedError("full").retry_after is None
    error = llama.OverloadedError("full", retry_after=1.5)
    assert error.retry_after == 1.5 and str(error) == "full"


@pytest.mark.parametrize("leaf", LEAVES)
def test_the_text_of_an_error_is_its_message(leaf: type[LlamaError]) -> None:
    assert str(leaf("what happened")) == "what happened"
    assert str(pickle.loads(pickle.dumps(leaf("what happened")))) == "what happened"
