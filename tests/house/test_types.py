"""What the type checkers need and do not ask for."""

import ast

import pytest

from tests.house.project import Module, modules

pytestmark = pytest.mark.house


def names(node: ast.AST | None) -> set[str]:
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name)} if node else set()


def type_variables(module: Module) -> set[str]:
    """Those that the module defines or takes from the core."""
    defined = {
        ast.unparse(node.targets[0])
        for node in module.tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and "TypeVar" in names(node.value.func)
    }
    taken = {
        full.rpartition(".")[2] for _, full in module.imports() if full.startswith("llama._core.service.")
    }
    return defined | {name for name in taken if name in {"I", "O", "I2", "O2"}}


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_a_factory_of_a_generic_layer_spells_its_type_out(module: Module) -> None:
    """`-> Middleware[I, O]` keeps mypy from inferring a stack: I and O are bound to the factory, not the layer."""
    variables = type_variables(module)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and isinstance(
            node.returns, ast.Subscript
        ):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            bound = set[str]().union(*(names(argument.annotation) for argument in arguments))
            loose = names(node.returns.slice) & variables - bound
            alias = ast.unparse(node.returns.value)
            told = f"{module.where(node)}: {node.name} returns {alias} of {sorted(loose)}: spell out Callable"
            assert alias not in ("Layer", "Middleware") or not loose, told
