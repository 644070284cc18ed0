"""Pages of the documentation site that are made of the package itself; `mkdocs.yml` names this file as a hook.

Notebooks and configurations become files of the site, each public package a page of the reference, and three marks in pages
are filled: ``<!-- judges -->`` and ``<!-- selectors -->`` with the registry's entries and their options, ``<!-- errors -->``
with every exception and warning, its cause from the docstring and its remedy from ``docs/remedies.toml``.
"""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any

import yaml
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from public_names import MODULES, ROOT, SOURCE, listed_problems, public_names
from pydantic import BaseModel

from arm_lens.registry import JUDGES, SELECTORS, Spec

NOTEBOOKS = {
    path.name: json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"][0].strip("# \n")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
}
"""The title of each."""


def table(model: type[BaseModel]) -> list[str]:
    """A table of options, with a link instead of the options of a group."""
    rows = []
    for name, option in model.model_fields.items():
        text = " ".join((option.description or "").split()).replace("|", "\\|")
        default = None if option.is_required() else option.get_default(call_default_factory=True)
        if name in getattr(model, "groups", ()):
            rows.append(f"| `{name}` | | a [group of options](#options-of-{name}) |")
        elif name != "kind":
            shown = "required" if option.is_required() else f"`{getattr(default, 'kind', default)!r}`"
            rows.append(f"| `{name}` | {shown} | {text} |")
    return ["| option | default | |", "|---|---|---|", *rows, ""] if rows else ["No options.", ""]


def as_yaml(options: Any) -> str:
    """Options as they are written in a configuration."""
    return yaml.safe_dump(options, default_flow_style=True, sort_keys=False, width=1000).strip()


def groups() -> str:
    """A section for each group of options."""
    models = {
        group: spec.options.model_fields[group].annotation for spec in JUDGES.values() for group in spec.options.groups
    }
    return "\n".join(line for group, model in models.items() for line in (f"### Options of {group}", "", *table(model)))


def listed(specs: list[Spec]) -> str:
    """A section for each entry that is no preset, with its presets and its options."""
    lines = []
    for spec in specs:
        if spec.preset_of is None:
            lines += [f"### {spec.name}", "", spec.summary, ""]
            lines += [f"By default `{as_yaml(spec.defaults)}`.", ""] if spec.defaults else []
            presets = [one for one in specs if one.preset_of == spec.name]
            lines += [f"- Preset `{one.name}`: {one.summary} `{as_yaml(one.defaults)}`" for one in presets]
            lines += ["", *table(spec.options)]
    return "\n".join(lines)


def reference(module: str) -> str:
    """A page of the reference."""
    members = "".join(f"\n        - {name}" for name in public_names(module))
    options = "      show_root_heading: false\n      show_root_toc_entry: false\n"
    return f"# arm_lens.{module}\n\n::: arm_lens.{module}\n    options:\n{options}      members:{members}\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put notebooks and the reference into the navigation."""
    config.nav.append({"Notebooks": [{title: f"notebooks/{name}"} for name, title in NOTEBOOKS.items()]})  # type: ignore[union-attr]
    config.nav.append({"Reference": [{f"arm_lens.{name}": f"reference/{name}.md"} for name in MODULES]})  # type: ignore[union-attr]
    return config


@event_priority(100)  # before mkdocs-jupyter looks for notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what does not stand in the folder of the pages."""
    for path in (SOURCE / "benchmark").glob("*.yaml"):
        files.append(File.generated(config, f"files/{path.name}", abs_src_path=str(path)))
    for name in NOTEBOOKS:
        files.append(File(f"notebooks/{name}", str(ROOT), config.site_dir, config.use_directory_urls))
    for module in MODULES:
        files.append(File.generated(config, f"reference/{module}.md", content=reference(module)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill the marks, and lead links out of the folder of the pages to the files that were added."""
    if "<!-- " in markdown:
        for mark, fill in MARKS.items():
            if f"<!-- {mark} -->" in markdown:
                markdown = markdown.replace(f"<!-- {mark} -->", fill())
    markdown = re.sub(r"\]\(\.\./((?:\.\./)*notebooks/\w+\.ipynb)\)", r"](\1)", markdown)
    return re.sub(r"\]\(\.\./src/arm_lens/benchmark/(\w+\.yaml)\)", r"](files/\1)", markdown)


@event_priority(-100)  # after mkdocs-jupyter
def on_page_content(html: str, page: Page, **_: Any) -> str:
    """Notebooks: formulas as MathML, which browsers draw without a script, and links to where pages are on the site."""

    def drawn(found: re.Match[str]) -> str:
        if found["code"]:
            return found["code"]
        return convert(unescape(found["block"] or found["line"]), display="block" if found["block"] else "inline")

    if not page.file.src_uri.endswith(".ipynb"):
        return html
    html = re.sub(r'href="(\w+)\.ipynb', r'href="../\1/', html)
    html = re.sub(r'href="\.\./docs/(\w+)\.md', r'href="../../\1/', html)
    code = r"(?P<code><(pre|code|script|style)\b.*?</\2>)"
    return re.sub(rf"{code}|\$\$(?P<block>[^$]+)\$\$|\$(?P<line>[^$\n]+)\$", drawn, html, flags=re.DOTALL)


MARKS = {
    "judges": lambda: listed(list(JUDGES.values())),
    "selectors": lambda: listed(list(SELECTORS.values())),
    "groups": groups,
    "errors": listed_problems,
}
