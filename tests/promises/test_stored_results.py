"""A stored result is found only for the model it was made with, and a changed file never gives other numbers."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers

from arm_lens.benchmark import BenchmarkConfig
from arm_lens.benchmark.run import run_parts
from arm_lens.judges.template import JudgeTemplate
from arm_lens.storage import DamagedFileError

pytestmark = pytest.mark.slow

TEMPLATE = JudgeTemplate(scalar="request: {prompt} reply: {response}", cue=" verdict:", yes=("yes",), no=("no",))
CHAT = "{% for m in messages %}{{ m.role }} : {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}verdict :{% endif %}"


@pytest.fixture
def config(folder_of, tmp_path) -> BenchmarkConfig:
    """A run of two judges with a model and a reference model, both in folders of their own."""
    for name in ("model", "reference"):
        shutil.copytree(folder_of("llama"), tmp_path / name)
        (tmp_path / name / "judge_template.json").write_text(json.dumps(asdict(TEMPLATE)))
        (tmp_path / name / "chat_template.jinja").write_text(CHAT)
    change_weights(tmp_path / "reference", "model.layers.0.mlp.down_proj")
    words = ["garden", "river", "mill", "church", "hotel", "farm", "school", "bridge"]
    rows = [{"prompt": f"the {one}", "chosen": f"{one} is warm", "rejected": "it is cold", "id": one} for one in words]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ratio = {"judge": "likelihood_ratio", "reference": str(tmp_path / "reference")}
    study = {"kind": "preferences", "name": "mine", "path": str(tmp_path / "pairs.jsonl"), "pool": 3}
    values = {"model": str(tmp_path / "model"), "judges": ["zero_shot", ratio], "lead": "zero_shot", "n_examples": [2]}
    return BenchmarkConfig.model_validate({**values, "studies": [study]})


def change_weights(folder: Path, *modules: str) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for name in modules:
            model.get_submodule(name).weight.mul_(-2)
    model.save_pretrained(folder)


def edit_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("system : be kind\n" + CHAT)


def items(config: BenchmarkConfig, out: Path) -> pd.DataFrame:
    return run_parts(config, out, progress=False).items


@pytest.mark.parametrize(
    ("which", "change", "changed"),
    [
        ("model", lambda folder: change_weights(folder, "lm_head"), {"zero_shot", "likelihood_ratio"}),
        ("model", lambda folder: change_weights(folder, "model.norm"), {"zero_shot", "likelihood_ratio"}),
        ("model", edit_template, {"zero_shot", "likelihood_ratio"}),
        ("reference", lambda folder: change_weights(folder, "lm_head"), {"likelihood_ratio"}),
    ],
    ids=["unembedding", "final norm", "template", "reference"],
)
def test_an_exchanged_model_leaves_no_old_result_standing(config, tmp_path, which, change, changed):
    before = items(config, tmp_path / "out")
    parts = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "parts").iterdir()}
    pd.testing.assert_frame_equal(items(config, tmp_path / "out"), before)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "parts").iterdir()} == parts
    change(tmp_path / which)
    after = items(config, tmp_path / "out")
    pd.testing.assert_frame_equal(after, items(config, tmp_path / "fresh"))
    differs = {
        name for name, rows in before.groupby("judge") if not rows["reward"].equals(after.loc[rows.index, "reward"])
    }
    assert differs == changed


def test_a_flipped_byte_of_a_part_is_an_error_that_names_it_or_changes_nothing(config, tmp_path):
    expected, order, refused = items(config, tmp_path), random.Random(0), 0
    for path in sorted((tmp_path / "parts").glob("*.parquet")):
        content = path.read_bytes()
        for _ in range(12):
            place = order.randrange(len(content))
            path.write_bytes(content[:place] + bytes([content[place] ^ 1 << order.randrange(8)]) + content[place + 1 :])
            with pytest.raises(DamagedFileError, match="changed"):
                items(config, tmp_path)
            refused += 1
        path.write_bytes(content)
    assert refused
    pd.testing.assert_frame_equal(items(config, tmp_path), expected)
