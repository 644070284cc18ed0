"""What arm_lens exports, and its exceptions and warnings, read from the source; for the documentation site and its tests."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "arm_lens"
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
