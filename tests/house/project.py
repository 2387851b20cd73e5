"""The project as text: its files, modules, imports and functions."""

import ast
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"


@dataclass(frozen=True)
class Module:
    """One source file."""

    path: Path

    @property
    def name(self) -> str:
        """Dotted, a package by its own name: `llama.tls`, `llama.tls._client_hello.client_hello`."""
        root = SOURCE if SOURCE in self.path.parents else ROOT
        parts = self.path.relative_to(root).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=str(self.path))

    def where(self, node: ast.stmt | ast.expr) -> str:
        return f"{self.path.relative_to(ROOT)}:{node.lineno}"

    def imports(self) -> list[tuple[ast.Import | ast.ImportFrom, str]]:
        """Every import statement with the full name of what it brings in, wherever it stands."""
        found: list[tuple[ast.Import | ast.ImportFrom, str]] = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [(node, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found += [(node, f"{node.module}.{alias.name}") for alias in node.names]
        return found

    def public_names(self) -> list[str]:
        """What `__all__` says."""
        for node in self.tree.body:
            match node:
                case ast.Assign(targets=[ast.Name("__all__")], value=ast.List() | ast.Tuple() as value):
                    return [str(ast.literal_eval(element)) for element in value.elts]
                case _:
                    pass
        return []


def modules(package: str = "") -> list[Module]:
    """The modules below src/, or those of one package."""
    return [Module(path) for path in sorted((SOURCE / package).rglob("*.py"))]


def examples() -> list[Module]:
    return [Module(path) for path in sorted((ROOT / "examples").glob("*.py"))]


def committed() -> list[Path]:
    """The files that git knows or would take up; all files where there is no git."""
    try:
        listing = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return [path for path in ROOT.rglob("*") if path.is_file() and ".venv" not in str(path)]
    return [path for name in listing.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]
