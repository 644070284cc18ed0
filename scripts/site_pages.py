"""Pages of the documentation site that are made of the package itself; `mkdocs.yml` names this file as a hook.

Notebooks and configurations become files of the site, each public package a page of the reference, and three marks in pages
are filled: ``<!-- judges -->`` and ``<!-- selectors -->`` with the registry's entries and their options, ``<!-- errors -->``
with every exception and warning, its cause from the docstring and its remedy from ``docs/remedies.toml``.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

from arm_lens.registry import JUDGES, SELECTORS, Spec

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "arm_lens"
NOTEBOOKS = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
MODULES = sorted(
    {path.parent.name for path in SOURCE.glob("*/__init__.py")} - {"cli", "safe_text"} | {"heads", "registry"}
)


def public_names(module: str) -> list[str]:
    """The names that a module of arm_lens exports, from its source."""
    path = SOURCE / module / "__init__.py" if (SOURCE / module).is_dir() else SOURCE / f"{module}.py"
    body = ast.parse(path.read_text(encoding="utf-8")).body
    for node in body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    defined = [node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    return [name for name in defined if not name.startswith("_")]


def problems() -> dict[str, tuple[str, str]]:
    """Where each exception and warning of arm_lens is found, and the first sentences of its docstring, by its name."""
    exported = {name: f"arm_lens.{module}" for module in MODULES for name in public_names(module)}
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.ClassDef)
                and re.fullmatch(r"[A-Z]\w*(Error|Warning)", node.name)
                and ast.unparse(node.bases[0]) != "BaseModel"
            ):
                module = "arm_lens." + ".".join(path.relative_to(SOURCE).with_suffix("").parts)
                cause = (ast.get_docstring(node) or "").partition("\n\n")[0]
                found[node.name] = exported.get(node.name, module), " ".join(cause.split())
    return found


def listed_problems() -> str:
    """A section for each exception and warning: the remedies' file has each of them once, and no other."""
    known = problems()
    groups = tomllib.loads((ROOT / "docs" / "remedies.toml").read_text(encoding="utf-8"))
    written = [name for group in groups.values() for name in group]
    if sorted(written) != sorted(known):
        raise ValueError(f"docs/remedies.toml and the package differ in {sorted(set(written) ^ set(known))}")
    lines = []
    for title, group in groups.items():
        lines += [f"## {title}", ""]
        for name, remedy in group.items():
            where, cause = known[name]
            lines += [f"### {name}", "", f"{cause} *({where})*", "", f"**What to do:** {remedy}", ""]
    return "\n".join(lines)


def rows(spec: Spec) -> Iterator[str]:
    """Table rows of the options of a judge or selector, each group's below its name."""

    def described(model: Any, prefix: str = "") -> Iterator[str]:
        for name, option in model.model_fields.items():
            if name in getattr(model, "groups", ()):
                yield from described(option.annotation, f"{prefix}{name}.")
            elif name != "kind":
                default = "required" if option.is_required() else f"`{option.get_default(call_default_factory=True)!r}`"
                text = " ".join((option.description or "").split()).replace("|", "\\|")
                yield f"| `{prefix}{name}` | {default} | {text} |"

    yield from described(spec.options)


def listed(specs: list[Spec]) -> str:
    """A section for each entry that is no preset, with its presets and its options."""
    lines = []
    for spec in specs:
        if spec.preset_of is None:
            presets = [one for one in specs if one.preset_of == spec.name]
            lines += [f"### {spec.name}", "", spec.summary, ""]
            lines += [f"- Preset `{one.name}`: {one.summary} `{one.defaults}`" for one in presets]
            options = list(rows(spec))
            lines += (
                ["", "| option | default | |", "|---|---|---|", *options, ""] if options else ["", "No options.", ""]
            )
    return "\n".join(lines)


def reference(module: str) -> str:
    """A page of the reference."""
    members = "".join(f"\n        - {name}" for name in public_names(module))
    return f"# arm_lens.{module}\n\n::: arm_lens.{module}\n    options:\n      show_root_heading: false\n      members:{members}\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put notebooks and the reference into the navigation."""
    config.nav.append({"Notebooks": [f"notebooks/{name}.ipynb" for name in NOTEBOOKS]})  # type: ignore[union-attr]
    config.nav.append({"Reference": [{f"arm_lens.{name}": f"reference/{name}.md"} for name in MODULES]})  # type: ignore[union-attr]
    return config


@event_priority(100)  # before mkdocs-jupyter looks for notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what does not stand in the folder of the pages."""
    for path in (SOURCE / "benchmark").glob("*.yaml"):
        files.append(File.generated(config, f"files/{path.name}", abs_src_path=str(path)))
    for name in NOTEBOOKS:
        files.append(File(f"notebooks/{name}.ipynb", str(ROOT), config.site_dir, config.use_directory_urls))
    for module in MODULES:
        files.append(File.generated(config, f"reference/{module}.md", content=reference(module)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill the marks, and lead links out of the folder of the pages to the files that were added."""
    if "<!-- " in markdown:
        for mark, fill in MARKS.items():
            if f"<!-- {mark} -->" in markdown:
                markdown = markdown.replace(f"<!-- {mark} -->", fill())
    return re.sub(r"\]\(\.\./src/arm_lens/benchmark/(\w+\.yaml)\)", r"](files/\1)", markdown)


MARKS = {
    "judges": lambda: listed(list(JUDGES.values())),
    "selectors": lambda: listed(list(SELECTORS.values())),
    "errors": listed_problems,
}
