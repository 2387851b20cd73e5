"""Who may import whom: read from the text, so that nothing needs to be imported for it."""

import ast
import sys
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.house.project import Module, examples, modules

pytestmark = pytest.mark.house

# Each part may import itself and the parts above it in this list.
LAYERS = [
    {"llama._core", "llama._lazy_import"},
    {"llama.layers", "llama.tcp", "llama.udp", "llama.unix"},
    {"llama.tls"},
    {"llama.http", "llama.socks5"},
    {"llama.ws", "llama.mitm"},
    {"llama._asgi", "llama._proxy_chain", "llama._runtime"},
    {"llama", "llama._cli", "llama.__main__"},
    {"pango"},
]
# The same inside llama.http.
HTTP_LAYERS = [
    {"_codings", "_limits", "_h3_extra", "_progress_timer"},
    {"_messages"},
    {"_client_settings", "_server_settings", "_stream_tunnel"},
    {"_h1"},
    {"_responder"},
    {"_h2"},
    {"_h3"},
    {"_client", "_server"},
    {"_proxy"},
    {"_layers"},
]
# Imported by none of the above.
BESIDE = {
    "llama.testing": {"llama._core", "llama._lazy_import", "llama.http"},
    "llama._pytest_plugin": {
        "llama._core",
        "llama.http",
        "llama.mitm",
        "llama.tcp",
        "llama.testing",
        "llama.tls",
        "llama.ws",
        "llama._runtime",
    },
}
# Modules outside the wire packages that do no I/O either.
PURE = {
    *(
        f"llama.tls._client_hello.{name}"
        for name in ("client_hello", "fields", "records", "diagnose", "fingerprint")
    ),
    "llama.tls._certificates.names",
    "llama.tcp._proxy_protocol.header",
    "llama.tcp._proxy_protocol.tlv",
    "llama.tcp._protocol_detection",
    "llama.ws._tap_wire",
}
IMPURE = {"asyncio", "ssl", "socket", "selectors", "select", "threading", "subprocess"}
OPTIONAL = {"qh3", "rich"}  # modules of extras, which are imported where they are needed
LATE = (
    "llama.http._h3.server.listener",  # needs qh3
    "llama.http._h3.client.client",  # needs qh3
    "llama._cli.mitm.console.app",  # needs rich
    "llama.testing._fixtures",  # every run of pytest loads the plugin; the fixtures load when a test uses one
)


def part(name: str) -> str:
    """The part of the project that a module belongs to: the package or module directly below `llama`, or `pango`."""
    pieces = name.split(".")
    return ".".join(pieces[:2]) if pieces[0] == "llama" else pieces[0]


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
        allowed |= BESIDE["llama._pytest_plugin" if "._fixtures" in module.name else mine]
    else:
        level = next((number for number, layer in enumerate(LAYERS) if mine in layer), None)
        assert level is not None, f"{module.name}: in which layer is {mine}? Add it to LAYERS here."
        allowed = set().union(*LAYERS[: level + 1])
    for name, node in dependencies(module).items():
        assert part(name) in allowed, f"{module.where(node)}: {mine} may not import {name}"


@pytest.mark.parametrize("module", modules("llama/http"), ids=lambda module: module.name)
def test_imports_inside_http_go_one_way(module: Module) -> None:
    mine = child("llama.http", module.name)
    level = next((number for number, layer in enumerate(HTTP_LAYERS) if mine in layer), None)
    if mine == "":  # the package itself re-exports
        return
    assert level is not None, f"{module.name}: in which layer is {mine}? Add it to HTTP_LAYERS here."
    allowed = {mine, ""}.union(*HTTP_LAYERS[:level])
    for name, node in dependencies(module).items():
        if name.startswith("llama.http."):
            assert child("llama.http", name) in allowed, f"{module.where(node)}: {mine} may not import {name}"


def child(folder: str, name: str) -> str:
    """The entry of a folder that holds a module: `_h1` of `llama.http` for `llama.http._h1.wire.head`."""
    return name.removeprefix(folder).lstrip(".").split(".")[0]


@pytest.mark.parametrize("folder", sorted({module.name for module in MODULES if module.is_package}))
def test_folders_have_no_cycles(folder: str) -> None:
    """The entries of a folder, files and folders alike, import each other one way."""
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        if not module.name.startswith(f"{folder}."):
            continue
        mine = child(folder, module.name)
        below = {child(folder, name) for name in dependencies(module) if name.startswith(f"{folder}.")}
        graph.setdefault(mine, set()).update(below - {mine})
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"entries of {folder} import each other: " + " -> ".join(error.args[1]))


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
    return name in PURE or "wire" in name.strip("_").replace("._", ".").split(".")


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
    if module.name == "llama._core.shutdown":
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
