"""The house rules that a machine can check."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import arm_lens

SOURCE = Path(arm_lens.__file__).parent
ORDER = [
    {"display"},
    {"heads"},
    {"preferences"},
    {"prompts", "tokens", "judge_model"},
    {"models"},
    {"activations", "circuit", "steering", "questions", "passes", "memory"},
    {"prefixes"},
    {"artefact", "denoising", "judging"},
    {"replay"},
    {"gating"},
    {"selection"},
    {"fitting"},
    {"reward", "sav"},
    {"baselines"},
    {"evaluation"},
    {"attribution", "comparison"},
    {"study"},
    {"plots"},
    {"page"},
    {"report", "benchmark_report"},
    {"benchmark"},
    {"run_figures"},
    {"cli"},
]
"""Imports run from later to earlier rows only."""
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}


def modules():
    return [path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py"]


def imported(path):
    """The arm_lens modules a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("arm_lens."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("arm_lens."))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_run_one_way(path):
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    for other in imported(path):
        assert other == room or RANK[other] < RANK[room], f"{room} must not import {other}"


def test_only_models_knows_the_model_classes():
    for path in modules():
        if path.name not in ("models.py", "passes.py"):
            text = path.read_text(encoding="utf-8")
            assert "import HookedTransformer" not in text
            assert "import TransformerBridge" not in text


def test_every_public_name_is_there_and_documented():
    for name in arm_lens.__all__:
        assert getattr(arm_lens, name).__doc__, name


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_module_teaches_its_idea_and_stays_one_thing(path):
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 350


def test_no_file_of_the_package_is_large_and_weights_stay_under_8_mb():
    weights = SOURCE / "judge_model" / "weights"
    assert sum(path.stat().st_size for path in weights.iterdir()) < 8e6
