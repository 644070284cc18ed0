"""What a fit, an evaluation and a configuration can be told is the same; what a fit was told is recorded with it."""

from __future__ import annotations

import json

import pytest
import typer
import yaml
from promises.asking_support import CHATML, byte_level, saying

from arm_lens.benchmark import read_config
from arm_lens.benchmark.data import plan
from arm_lens.benchmark.judging import context_of
from arm_lens.cli import app
from arm_lens.judges.options import QuestionOptions
from arm_lens.reward.model import FitRecord

IN_THE_FIT = {
    "selector", "selector_option", "readings", "demonstrations", "folds", "denoise", "reward", "injection", "strength",
    "seed", "template", "layout", "criterion_text", "system", "chat_template_kwarg", "on_too_long", "batch_size",
}  # fmt: skip
OF_THE_DATA = {"format", "split", "column", "label", "winner", "on_error", "limit", "allow_urls", "allow_any_path"}
IN_AN_EVALUATION = {"score_kind", "demonstrations", "on_too_long", "batch_size"}
"""What a reward model that is fitted already can still be told."""
JUDGE = {
    "judge": "arm", "name": "mine", "score_kind": "gap",
    "selector": {"kind": "top_effect", "k": 2}, "readings": 5, "demonstrations": 3, "folds": 3, "denoise": {"explained": 0.8},
    "reward": "two_way", "injection": {"mode": "add", "strength": 0.5},
    "layout": "scalar", "template": {"scalar": "{prompt} {response} ok?"},
    "criterion_text": "It is warm.", "system": "Be strict.", "chat_template_kwargs": {"enable_thinking": False},
    "on_too_long": "clip", "batch_size": 7,
}  # fmt: skip


def options(command):
    return {one.name for one in typer.main.get_command(app).commands[command].params}


def test_each_command_has_the_options_that_make_sense_for_it():
    assert IN_THE_FIT | OF_THE_DATA | {"show_prompt"} <= options("fit")
    assert IN_AN_EVALUATION | OF_THE_DATA | {"show_prompt"} <= options("evaluate")
    assert {"score_kind", "on_too_long", "batch_size", "limit", "column", "split", "on_error"} <= options("score")
    assert "show_prompt" in options("benchmark")


def test_what_cannot_be_told_to_an_evaluation_was_recorded_by_the_fit():
    ours = {
        "selector": "search",
        "selector_option": "search",
        "strength": "injection",
        "chat_template_kwarg": "chat_template_kwargs",
    }
    recorded = {*FitRecord.__dataclass_fields__, *QuestionOptions.model_fields, "injection"}
    assert {ours.get(name, name) for name in IN_THE_FIT - IN_AN_EVALUATION} <= recorded


@pytest.mark.tl4
def test_a_configuration_can_be_told_all_of_it(tmp_path):
    run = {"judges": [JUDGE], "lead": "mine", "n_examples": [4]}
    run["studies"] = [{"kind": "preferences", "name": "rows", "path": "rows.jsonl", "limit": 30, "pool": 10}]
    rows = [{"prompt": f"question {n}", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(50)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    config = read_config(tmp_path / "run.yaml")
    [task] = plan(config)
    [choice] = task.judges
    context = context_of(choice, task, saying(byte_level(CHATML)), config)
    assert len(task.test.items) == 20 and choice.score_kind == "gap"
    question, reading, own = context.question, context.reading, choice.parsed
    for name in ("layout", "criterion_text", "system", "chat_template_kwargs", "on_too_long", "batch_size"):
        assert getattr(question, name) == JUDGE[name], name
    assert question.template.scalar == JUDGE["template"]["scalar"]
    assert (reading.readings, reading.demonstrations, reading.folds, reading.denoise.explained) == (5, 3, 3, 0.8)
    assert (own.selector.kind, own.selector.k, own.reward) == ("top_effect", 2, "two_way")
    assert (own.injection.mode, own.injection.strength) == ("add", 0.5)
