"""The Python code of README.md and the pages of docs/: its blocks, and what a page takes for granted.

The blocks of a page are one program. What a reader has before it begins (a model, examples, files) is made by the page's
*setup*, a module in `setups` named after the page, with

- ``GIVEN``: the names that blocks use without making them;
- ``NOT_RUN``: the beginnings of blocks that cannot be run here, each with the reason;
- ``prepare(page)``: fills the given names and writes the files of a `Page`; may give what in the blocks is replaced when
  they are run, such as the name of a model by a folder with a small one.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import reduce
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code, and where its first line stands."""

    page: Path
    line: int
    text: str

    def tree(self) -> ast.Module:
        """The code, whose lines are numbered as in the page."""
        return ast.increment_lineno(ast.parse(self.text), self.line - 1)


def name_of(page: Path) -> str:
    """The page's name in test ids, and its setup's: ``howto_chat`` of ``docs/howto/chat.md``."""
    return "_".join(page.relative_to(ROOT).with_suffix("").parts).removeprefix("docs_").lower()


def blocks_of(page: Path) -> list[Block]:
    """The Python blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [Block(page, text.count("\n", 0, found.start(2)) + 1, found[2]) for found in FENCE.finditer(text)]


def setup_of(page: Path) -> ModuleType | None:
    """The setup of a page, if it has one."""
    name = name_of(page)
    if not (Path(__file__).parent / "setups" / f"{name}.py").exists():
        return None
    return importlib.import_module(f"docs.setups.{name}")


class Names(ast.NodeVisitor):
    """Follows the names of a program without running it: what they are, as far as imports say."""

    def __init__(self, given: frozenset[str]) -> None:
        self.known: dict[str, Any] = dict.fromkeys(given | set(dir(builtins)) | {"__file__"})
        self.problems: list[str] = []

    def visit_Import(self, node: ast.Import) -> None:
        for one in node.names:
            self.known[one.asname or one.name.partition(".")[0]] = self._module(node, one.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = self._module(node, node.module or "")
        for one in node.names:
            self.known[one.asname or one.name] = None
            if module is not None:
                self.known[one.asname or one.name] = self._attribute(node, module, one.name)

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self.known[node.id] = None
        elif node.id not in self.known:
            self.problems.append(f"line {node.lineno}: {node.id} is not defined on this page")

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self.visit(target)

    def visit_For(self, node: ast.For) -> None:
        for part in (node.iter, node.target, *node.body, *node.orelse):
            self.visit(part)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for part in (node.iter, node.target, *node.ifs):
            self.visit(part)

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        for part in node.generators:
            self.visit(part)
        for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.visit(part)

    visit_SetComp = visit_GeneratorExp = visit_DictComp = visit_ListComp

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.known[node.name] = None
        arguments = node.args
        for one in (*arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
            if one is not None:
                self.known[one.arg] = None
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self.known[node.name or ""] = None
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        called = self._value(node.func)
        if called is None or not callable(called):
            return
        try:
            parameters = inspect.signature(called).parameters
        except ValueError:  # of some classes in C
            return
        if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
            return
        for one in node.keywords:
            if one.arg is not None and one.arg not in parameters:
                self.problems.append(f"line {node.lineno}: {ast.unparse(node.func)} has no parameter {one.arg}")

    def _value(self, node: ast.expr) -> Any:
        """What an expression of names and dots is, or None if imports do not say."""
        if isinstance(node, ast.Name):
            return self.known.get(node.id)
        if isinstance(node, ast.Attribute) and (owner := self._value(node.value)) is not None:
            return self._attribute(node, owner, node.attr)
        return None

    def _attribute(self, node: ast.AST, owner: Any, name: str) -> Any:
        try:
            return getattr(owner, name)
        except AttributeError:
            self.problems.append(f"line {node.lineno}: {owner.__name__} has no {name}")  # type: ignore[attr-defined]
            return None

    def _module(self, node: ast.stmt, name: str) -> ModuleType | None:
        """A module of arm_lens; of others, only whether they are installed, since some take seconds to import."""
        if name.partition(".")[0] != "arm_lens":
            if find_spec(name.partition(".")[0]) is None:
                self.problems.append(f"line {node.lineno}: there is no package {name}")
            return None
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            self.problems.append(f"line {node.lineno}: {error}")
            return None


def problems_of(blocks: list[Block], given: frozenset[str]) -> list[str]:
    """Names that the blocks use and nobody defines, imports of what is not there, and parameters that do not exist."""
    names = Names(given)
    for block in blocks:
        names.visit(block.tree())
    return names.problems


class Page(ExitStack):
    """What a setup fills before the code of a page is run: its names, and an empty folder, which is the current one.

    Attributes:
        names: the namespace of the blocks.
        folder: where they read and write.
        cache: what all pages share, such as small models.
        monkeypatch: undone once the page has been run.
    """

    def __init__(self, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.names: dict[str, Any] = {"__name__": "page"}
        self.folder, self.cache, self.monkeypatch = folder, cache, monkeypatch


def run(path: Path, page: Page) -> None:
    """Run the blocks of a page in one namespace; an error's traceback names the page and the line."""
    setup, blocks = setup_of(path), blocks_of(path)
    instead: Mapping[str, str] = (setup.prepare(page) if setup else None) or {}
    not_run: Mapping[str, str] = getattr(setup, "NOT_RUN", {})
    for beginning in not_run:
        assert any(block.text.startswith(beginning) for block in blocks), f"no block begins with {beginning!r}"
    for block in blocks:
        if not block.text.startswith(tuple(not_run)):
            text = reduce(lambda text, one: text.replace(*one), instead.items(), block.text)
            exec(compile(replace(block, text=text).tree(), str(path), "exec"), page.names)


def pages_with_code() -> Iterator[Path]:
    """Every page that has Python code."""
    return (page for page in PAGES if blocks_of(page))
