"""What judges' models would read is shown before anything is fitted or run."""

from __future__ import annotations

import pytest
import yaml
from typer.testing import CliRunner

from arm_lens.benchmark import BenchmarkConfig, prompts_of
from arm_lens.benchmark.data import plan
from arm_lens.cli import app
from arm_lens.judges.generative import GenerativeJudge
from arm_lens.reward import fitting

BARE = ["zero_shot", "arm_reinforce", "arm_random_heads", "sav", "probe"]
JUDGES = [
    *BARE, "few_shot", "ranked_zero_shot", "voting", "voting_rationale", "likelihood", "length",
    {"judge": "endpoint", "model": "m", "api_key_env": "NO_SUCH_KEY"},
]  # fmt: skip
RUN = {
    "judges": JUDGES, "n_examples": [4], "samples": 2, "demonstrations": 3, "test_items": 3,
    "studies": [{"kind": "world", "criteria": ["polite"]}],
}  # fmt: skip


def squeezed(text):
    return "".join(text.lower().split())


def test_every_judges_prompt_is_about_the_first_item_and_nothing_is_run(monkeypatch):
    for place, name in ((GenerativeJudge, "verdict"), (GenerativeJudge, "steered_verdict"), (fitting, "mean_heads")):
        monkeypatch.setattr(place, name, lambda *_, **__: pytest.fail("something was run"))
    config = BenchmarkConfig.model_validate(RUN)
    first = plan(config)[0].test.items[0].example
    shown = list(prompts_of(config))
    of = {judge: [one for one in shown if judge in one.judges] for judge in BARE}
    assert {len(some) for some in of.values()} == {1}, "the same in both samples, and shown once"
    assert len({some[0].text for some in of.values()}) == 1 and set(BARE) <= set(of["sav"][0].judges)
    by_judge = {judge: one.text for one in shown if "sample 0" in one.task for judge in one.judges}
    assert by_judge["length"] is None and set(by_judge) == {
        one if isinstance(one, str) else "endpoint" for one in JUDGES
    }
    for judge, text in by_judge.items():
        if text is not None:
            assert squeezed(first.chosen) in squeezed(text), judge
            assert (squeezed(first.rejected) in squeezed(text)) == (judge == "ranked_zero_shot"), judge
    bare = by_judge["zero_shot"].count("verdict:")
    assert by_judge["few_shot"].count("verdict:") == 3 + bare and "against" in by_judge["few_shot"]
    few = [one for one in shown if "few_shot" in one.judges]
    assert len(few) == 2 and few[0].text != few[1].text, "another sample has other demonstrations"
    assert "reasons follow" in by_judge["voting_rationale"] and by_judge["endpoint"].startswith(("user: ", "system: "))
    assert "the likelihood is that of the last" in by_judge["likelihood"]


def test_the_command_prints_them_and_writes_nothing(tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(RUN | {"judges": ["zero_shot", "length"], "lead": "zero_shot"}))
    found = CliRunner().invoke(
        app, ["benchmark", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "out"), "--show-prompt"]
    )
    assert found.exit_code == 0, found.output
    [item] = plan(BenchmarkConfig.model_validate(RUN | {"samples": 1}))[0].test.items[:1]
    assert squeezed(item.example.chosen) in squeezed(found.output)
    assert "zero_shot" in found.output and "length\nno model is asked" in found.output
    assert not (tmp_path / "out").exists()
