"""Who may import whom: read from the text, so that nothing needs to be imported for it."""

import ast
import sys
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.house.project import Module, examples, modules

pytestmark = pytest.mark.house

# Each layer may import itself and those above it in this list.
LAYERS = [
    {"llama._core"},
    {"llama.layers", "llama.tcp", "llama.udp", "llama.unix"},
    {"llama.tls"},
    {"llama.http", "llama.socks5"},
    {"llama.ws", "llama.mitm", "llama.transports"},
    {
        "llama._asgi",
        "llama._child",
        "llama._generation",
        "llama._keeper",
        "llama._listeners",
        "llama._plan",
        "llama._process",
        "llama._resources",
        "llama._run",
        "llama._serve",
        "llama._signals",
        "llama._supervisor",
        "llama._systemd",
        "llama._worker",
    },
    {"llama", "llama._cli", "llama.__main__"},
    {"pango"},
]
# Imported by none of the above.
BESIDE = {
    "llama.testing": {"llama._core", "llama.http"},
    "llama._pytest": {
        "llama._core",
        "llama.http",
        "llama.mitm",
        "llama.tcp",
        "llama.testing",
        "llama.tls",
        "llama.ws",
        "llama._run",
    },
}
CORE = {
    "_service",
    "_stack",
    "_stray",
    "_extensions",
    "_errors",
    "_stream",
    "_shutdown",
    "_target",
    "_meter",
    "_server",
    "_later",
    "_logs",
    "_packets",
    "_resources",
}
# Wire modules by another name.
PURE = {
    f"llama.tls.{name}"
    for name in ("_hello", "_hello_fields", "_records", "_not_tls", "_fingerprint", "_names")
}
SINGLE = {
    "_asgi",
    "_cli",
    "__main__",
    "_pytest",
}  # every other module at the top that is not core belongs to run
IMPURE = {"asyncio", "ssl", "socket", "selectors", "select", "threading", "subprocess"}
OPTIONAL = {"qh3", "rich"}  # modules of extras, which are imported where they are needed
LATE = (
    *("llama.http._h3_server", "llama.http._h3_client"),  # ours that cannot do without one
    "llama._cli._mitm_console",
    "llama.testing._plugin",  # what fixtures are made of, for every run of pytest loads the plugin
)


def part(name: str) -> str:
    """The part of the project a module belongs to: a top-level package, a single module, or the core."""
    top, _, rest = name.partition(".")
    if top != "llama" or not rest:
        return top
    first = rest.split(".")[0]
    if is_core(first):
        return "llama._core"
    return "llama._run" if first.startswith("_") and first not in SINGLE else f"llama.{first}"


def is_core(first: str) -> bool:
    return first in CORE or any(first.startswith(f"{name}_") for name in CORE)


MODULES = modules()
PACKAGES = [module for module in MODULES if module.is_package and "._" not in module.name]
BY_NAME = {module.name: module for module in MODULES}


def target(full: str) -> str | None:
    """The project's module that an imported name comes from; None for what is not the project's."""
    while full and full not in BY_NAME:
        full = full.rpartition(".")[0]
    return full or None


def dependencies(module: Module) -> dict[str, ast.Import | ast.ImportFrom]:
    found = {name: node for node, full in module.imports() if (name := target(full)) and name != module.name}
    return dict(found)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_imports_go_one_way(module: Module) -> None:
    mine = part(module.name)
    allowed = {"llama._core", mine}
    if mine in BESIDE:
        allowed |= BESIDE["llama._pytest" if "plugin" in module.name else mine]
    else:
        level = next((number for number, layer in enumerate(LAYERS) if mine in layer), None)
        assert level is not None, f"{module.name}: in which layer is {mine}? Add it to LAYERS here."
        allowed = set().union(*LAYERS[: level + 1])
    for name, node in dependencies(module).items():
        assert part(name) in allowed, f"{module.where(node)}: {mine} may not import {name}"


def test_there_are_no_cycles() -> None:
    graph = {module.name: set(dependencies(module)) for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("these modules import each other: " + " -> ".join(error.args[1]))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_imports_are_at_the_top(module: Module) -> None:
    top: list[ast.stmt] = list(module.tree.body)
    for node in module.tree.body:  # if TYPE_CHECKING, if sys.platform, try: of an extra
        if isinstance(node, ast.If | ast.Try):
            top += [inner for inner in ast.walk(node) if isinstance(inner, ast.Import | ast.ImportFrom)]
    for node, full in module.imports():
        late = node not in top and full.split(".")[0] not in OPTIONAL and not full.startswith(LATE)
        assert not late, f"{module.where(node)}: import {full} belongs at the top of the file"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_wire_modules_are_pure(module: Module) -> None:
    if not is_wire(module.name):
        return
    for below in reachable(module):
        for node, full in below.imports():
            pure = full.split(".")[0] not in IMPURE
            assert pure, f"{below.where(node)} imports {full}, and {module.name} needs it"


def reachable(module: Module) -> list[Module]:
    """A module with all that it imports of the project, and what that imports."""
    found = [module]
    for each in found:  # which grows meanwhile
        found += [BY_NAME[name] for name in dependencies(each) if BY_NAME[name] not in found]
    return found


def is_wire(name: str) -> bool:
    """Bytes in, events out: no sockets, no loop."""
    pieces = name.split(".")
    return name in PURE or any(piece.strip("_") == "wire" or piece.endswith("_wire") for piece in pieces)


@pytest.mark.parametrize("module", [*modules("pango"), *examples()], ids=lambda module: module.name)
def test_pango_and_the_examples_use_public_names_only(module: Module) -> None:
    public = {found.name: found.public_names() for found in MODULES if found.is_package}
    imported: set[str] = set()
    for node, full in module.imports():
        if full.split(".")[0] != "llama":
            continue
        package, _, name = full.rpartition(".")
        ok = full in public or name in public.get(package, [])
        assert ok and "._" not in full, f"{module.where(node)}: {full} is not public"
        imported |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
    for use in ast.walk(module.tree):
        if isinstance(use, ast.Attribute) and use.attr.startswith("_") and not use.attr.endswith("__"):
            root = ast.unparse(use.value).split(".")[0]
            assert root not in imported, f"{module.where(use)}: {ast.unparse(use)} is not public"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_only_packages_are_public(module: Module) -> None:
    last = module.name.rpartition(".")[2]
    private = last.startswith("_") or "._" in module.name
    assert module.is_package or private, f"{module.path.name}: implementation files begin with an underscore"


@pytest.mark.parametrize("module", PACKAGES, ids=lambda module: module.name)
def test_a_public_package_only_re_exports(module: Module) -> None:
    for node in module.tree.body:
        assert re_exports(node), f"{module.where(node)}: a public package holds no code"


def re_exports(node: ast.stmt) -> bool:
    """A docstring, an import, a dunder name; some of each for type checkers, which see what is loaded later."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return all(map(re_exports, node.body + node.orelse))
    docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    dunder = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith(("__", "(__"))
    return docstring or dunder or isinstance(node, ast.Import | ast.ImportFrom)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_tasks_are_made_by_shutdown_only(module: Module) -> None:
    """What ruff's ban of asyncio.create_task cannot see: the same by way of the loop."""
    if module.name == "llama._shutdown":
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr in ("create_task", "ensure_future"):
            receiver = ast.unparse(node.value)
            loose = "loop" in receiver or receiver == "asyncio"
            assert not loose, f"{module.where(node)}: {receiver}.{node.attr}: Shutdown owns every task"


def test_only_declared_packages_are_imported() -> None:
    declared = {"click", "cryptography", "platformdirs", "websockets", "llama", "pango", "pytest"} | OPTIONAL
    for module in MODULES:
        for node, full in module.imports():
            top = full.split(".")[0]
            ok = top in sys.stdlib_module_names or top in declared
            assert ok, f"{module.where(node)}: {top} is not among the dependencies"
