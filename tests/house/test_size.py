"""Small files, small functions."""

import ast

import pytest

from tests.house.project import Module, modules

pytestmark = pytest.mark.house

LINES_OF_A_FILE = 500
LINES_OF_A_FUNCTION = 50


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_files_and_functions_are_small(module: Module) -> None:
    lines = module.text.count("\n")
    assert lines <= LINES_OF_A_FILE, f"{module.path.name} has {lines} lines: which two ideas does it hold?"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1 - lines_of_docstring(node)
            assert length <= LINES_OF_A_FUNCTION, f"{module.where(node)}: {node.name} has {length} lines"


def lines_of_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of its docstring, which do not count: a public function documents each of its parameters."""
    first = node.body[0]
    has_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return (first.end_lineno or first.lineno) - first.lineno + 1 if has_docstring else 0
