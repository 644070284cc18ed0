"""The house rules that a machine can check."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import arm_lens

SOURCE = Path(arm_lens.__file__).parent
ROOT = Path(__file__).resolve().parents[1]


def modules():
    return [path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py"]


def lint_imports(folder):
    """What import-linter says of the package in a folder, by the contracts of pyproject.toml."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"]
    command += ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    return subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False
    )


def test_imports_run_upwards_only():
    found = lint_imports(SOURCE.parent)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("heads.py", "from arm_lens.engine.replay import Replay"),
        ("evaluation/health.py", "from arm_lens.judges.base import Judge"),
        ("plots/theme.py", "from arm_lens.reward.model import ActivationRewardModel"),
        ("attribution/result.py", "from arm_lens.comparison.overlaps import overlaps"),
    ],
)
def test_an_import_turned_round_is_noticed(tmp_path, module, line):
    shutil.copytree(SOURCE, tmp_path / "arm_lens", ignore=shutil.ignore_patterns("*weights", "__pycache__"))
    path = tmp_path / "arm_lens" / module
    path.write_text(path.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    found = lint_imports(tmp_path)
    assert found.returncode == 1
    assert "BROKEN" in found.stdout


def test_a_module_without_a_floor_is_noticed(tmp_path):
    shutil.copytree(SOURCE, tmp_path / "arm_lens", ignore=shutil.ignore_patterns("*weights", "__pycache__"))
    (tmp_path / "arm_lens" / "somewhere.py").write_text('"""Nowhere."""\n', encoding="utf-8")
    assert lint_imports(tmp_path).returncode == 1


def test_at_most_six_modules_stand_beside_the_packages():
    assert len(list(SOURCE.glob("*.py"))) <= 6


def test_only_the_engine_knows_the_model_classes():
    for path in modules():
        if path.parent != SOURCE / "engine":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"import .*(HookedTransformer|TransformerBridge)", text), path
            assert "transformer_lens" not in text.replace("transformer-lens", ""), path


def test_within_the_engine_only_adapters_dispatch_and_loading_name_the_model_classes():
    classes = {"TransformerBridge", "HookedTransformer", "PreTrainedModel"}
    for path in (SOURCE / "engine").glob("*.py"):
        if path.stem not in ("bridge", "bridge_attention", "hooked", "language_model", "loading"):
            tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            named = {node.id for node in tree if isinstance(node, ast.Name)}
            assert not named & classes, path


def test_no_module_but_the_engine_reads_a_models_config():
    for path in modules():
        if path.parent != SOURCE / "engine":
            assert not re.search(r"\bmodel\.cfg\b", path.read_text(encoding="utf-8")), path


def test_every_public_name_is_there_and_documented():
    assert len(arm_lens.__all__) <= 30
    for name in arm_lens.__all__:
        assert getattr(arm_lens, name).__doc__, name


def test_a_user_can_filter_every_warning_by_a_public_name():
    public = {name for package in arm_lens.__dir__() for name in getattr(getattr(arm_lens, package), "__all__", ())}
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Warning"):
                assert node.name in public or path.parent == SOURCE, f"{node.name} of {path}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_module_teaches_its_idea_and_stays_one_thing(path):
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 500


@pytest.mark.slow
def test_no_parameter_of_a_model_is_typed_any():
    """A model is a ``ModelLike`` or a ``LanguageModel``."""
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.arg) and node.arg in ("model", "reference") and node.annotation is not None:
                assert ast.unparse(node.annotation) not in ("Any", "object"), f"{path}, line {node.lineno}"


def test_no_file_of_the_package_is_large_and_weights_stay_under_8_mb():
    weights = SOURCE / "judge_model" / "weights"
    assert sum(path.stat().st_size for path in weights.iterdir()) < 8e6
