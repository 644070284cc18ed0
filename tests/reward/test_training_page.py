"""The adapters in docs/training.md are run as they stand there, on the bundled model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from arm_lens import ActivationRewardModel, HeadSet, load_model
from arm_lens.judge_model import labelled_responses
from arm_lens.judges.options import ReadingOptions

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
PROMPTS = ["what is the garden like?", "tell me about the river."]
RESPONSES = ["thank you for asking. the garden is lovely.", "stop bothering me. the river is dull."]


def blocks(section):
    """The Python code of a section."""
    text = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)[1]
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def judge():
    examples = labelled_responses("polite", 8, split="train", seed=0)
    return ActivationRewardModel.fit(
        load_model(), examples, criterion="polite", selector=HeadSet.of(6, 8, [(0, 5), (3, 2)]),
        reading=ReadingOptions(readings=2, demonstrations=2),
    )  # fmt: skip


@pytest.fixture
def run(judge, tmp_path, monkeypatch):
    """Run code in a folder that has the judge that the page loads."""
    judge.save(tmp_path / "polite")
    monkeypatch.chdir(tmp_path)

    def run(code):
        names = {}
        for part in code:
            exec(part.replace('"Qwen/Qwen2.5-1.5B-Instruct"', ""), names)
        return names

    return run


def test_every_block_is_python():
    found = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(found) == 6
    for code in found:
        compile(code, "docs/training.md", "exec")


def test_the_adapters_for_verl(run, judge):
    expected = judge.score(PROMPTS, RESPONSES).tolist()
    single, batch = blocks("veRL")
    score = run([single])["compute_score"]
    found = [
        score(data_source="x", solution_str=response, ground_truth="", extra_info={"prompt": prompt})
        for prompt, response in zip(PROMPTS, RESPONSES, strict=True)
    ]
    assert found == pytest.approx(expected, abs=1e-5)
    score = run([single, batch])["compute_score"]
    extras = [{"prompt": prompt} for prompt in PROMPTS]
    texts = {"data_sources": ["x"] * 2, "solution_strs": RESPONSES, "ground_truths": [""] * 2, "extra_infos": extras}
    assert score(**texts) == pytest.approx(expected, abs=1e-5)
    with pytest.warns(UserWarning, match="no reward"):
        assert score(**(texts | {"solution_strs": [RESPONSES[0], "garden " * 2000]}))[1] == 0.0


def test_the_adapter_for_openrlhf(run, judge):
    score = run(blocks("OpenRLHF"))["reward_func"]
    queries = [prompt + response for prompt, response in zip(PROMPTS, RESPONSES, strict=True)]
    found = score(queries=queries, prompts=PROMPTS, labels=[None, None])
    assert found["rewards"].tolist() == pytest.approx(judge.score(PROMPTS, RESPONSES).tolist(), abs=1e-5)
    assert found["scores"] is found["rewards"] and list(found["extra_logs"]) == ["polite"]
