"""Loads a Python file, anew each time it is asked to, with the modules that it imports from its own directory."""

from __future__ import annotations

import importlib
import linecache
import os
import sys
import traceback
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import TypeAlias

Stamp: TypeAlias = tuple[int, int, int] | None
"""When a file was changed, its size and which one it is; None where there is none."""
_INSTALLED = frozenset({"site-packages", "dist-packages", ".venv", "venv"})


class _Fresh(SourceFileLoader):
    """Never by compiled files: theirs is a time of whole seconds."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


class Loader:
    """One file. Modules from its directory count as part of it, unless they were loaded before it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(path))
        self._folder = str(self.path.parent)
        self._name = _free_name(self.path.stem)
        self._others = frozenset(name.partition(".")[0] for name in sys.modules)
        self._before: dict[str, ModuleType] = {}
        self._looked_at: set[str] = set()
        """Files that the latest load, which failed, has to do with."""
        self._on_path = False
        self._known = 0
        self._files: set[str] = set()

    def load(self) -> ModuleType:
        """Run the file. Where it raises, all is as before; else `keep` or `undo` follows."""
        self._before = self._take_out()
        self._looked_at = set()
        importlib.invalidate_caches()
        writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        sys.path.insert(0, self._folder)
        try:
            return self._run()
        except BaseException as error:
            self._looked_at = self._files_of(error) | self._files_of_modules()
            self.undo()
            raise
        finally:
            sys.path.remove(self._folder)
            sys.dont_write_bytecode = writes
            linecache.checkcache()

    def _run(self) -> ModuleType:
        spec = spec_from_file_location(self._name, self.path, loader=_Fresh(self._name, str(self.path)))
        if spec is None or spec.loader is None:
            raise ImportError(f"{self.path} cannot be imported")
        module = module_from_spec(spec)
        sys.modules[self._name] = module
        spec.loader.exec_module(module)
        return module

    def keep(self) -> None:
        """What was loaded is good: what was there before is let go."""
        self._before = {}
        self._looked_at = set()
        if not self._on_path:  # for what is imported later, within functions; behind all others
            sys.path.append(self._folder)
            self._on_path = True

    def undo(self) -> None:
        """Put the modules back that were there before."""
        self._looked_at |= self._files_of_modules()
        self._take_out()
        sys.modules.update(self._before)
        self._before = {}

    def close(self) -> None:
        """Take everything out of the interpreter again."""
        self._take_out()
        if self._on_path:
            sys.path.remove(self._folder)
            self._on_path = False

    def files(self) -> set[str]:
        """The files that it is made of, as far as they have been imported, and those that kept it from loading."""
        if len(sys.modules) != self._known:
            self._known = len(sys.modules)
            self._files = self._files_of_modules()
        return {str(self.path)} | self._files | self._looked_at

    def loaded_files(self, error: BaseException) -> str:
        """The traceback of an error, from the first line on that is the file's own."""
        trace = error.__traceback__
        while trace is not None and not self._is_below(trace.tb_frame.f_code.co_filename):
            trace = trace.tb_next
        return "".join(traceback.format_exception(type(error), error, trace)).rstrip()

    # modules

    def _take_out(self) -> dict[str, ModuleType]:
        mine = self._modules()
        for name in mine:
            del sys.modules[name]
        self._known = 0
        return mine

    def _modules(self) -> dict[str, ModuleType]:
        return {name: each for name, each in list(sys.modules.items()) if self._is_mine(name, each)}

    def _is_mine(self, name: str, module: object) -> bool:
        if name == self._name:
            return True
        if name.partition(".")[0] in self._others or not isinstance(module, ModuleType):
            return False
        file = module.__dict__.get("__file__")
        if isinstance(file, str):
            return self._is_below(file)
        return any(map(self._is_below, module.__dict__.get("__path__", ())))  # a package without a file

    def _is_below(self, file: str) -> bool:
        if not file.startswith(self._folder.rstrip(os.sep) + os.sep):
            return False
        return _INSTALLED.isdisjoint(file[len(self._folder) :].split(os.sep))

    def _files_of_modules(self) -> set[str]:
        files = (each.__dict__.get("__file__") for each in self._modules().values())
        return {each for each in files if isinstance(each, str)}

    def _files_of(self, error: BaseException) -> set[str]:
        """The files that an error names; the directory, where a module may yet appear in it."""
        found = set(_files_in(error.__traceback__))
        if isinstance(error, SyntaxError) and error.filename is not None:
            found.add(error.filename)
        if isinstance(error, ImportError):
            found.add(self._folder + os.sep)
        return {each for each in found if self._is_below(each)}


def _files_in(trace: TracebackType | None) -> list[str]:
    return [frame.f_code.co_filename for frame, _ in traceback.walk_tb(trace)]


def _free_name(stem: str) -> str:
    name, number = f"llama_script_{stem}", 2
    while name in sys.modules:
        name, number = f"llama_script_{stem}_{number}", number + 1
    return name


def stamp(file: str) -> Stamp:
    """What tells whether a file has changed."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
