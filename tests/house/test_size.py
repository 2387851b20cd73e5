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
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= LINES_OF_A_FUNCTION, f"{module.where(node)}: {node.name} has {length} lines"
