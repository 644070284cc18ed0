"""What somebody sees who has installed arm_lens: types that check, and no more dependencies than are needed."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

STRANGER = """
from arm_lens import ActivationRewardModel, LabelledResponse, load_model

model = load_model("some/model")
reveal_type(model)
examples = [LabelledResponse("Hello", "Good day to you.", True), LabelledResponse("Hello", "What?", False)]
reward = ActivationRewardModel.fit(model, examples, question="The response is polite.")
reveal_type(reward)
reveal_type(reward.score(["Hello"], ["Hi."]))
reveal_type(reward.prefer("Hello", "Hi.", "What?"))
reveal_type(reward.prefer(["Hello"], ["Hi."], ["What?"]))
reveal_type(reward.heads)
"""
REVEALED = [
    "transformer_lens.model_bridge.bridge.TransformerBridge",
    "arm_lens.reward.model.ActivationRewardModel",
    "torch._tensor.Tensor",
    "arm_lens.judges.base.Comparison",
    "list[arm_lens.judges.base.Comparison]",
    "arm_lens.heads.HeadSet",
]
EXTRAS = ("plotly", "kaleido", "sklearn", "statsmodels", "yaml", "loky", "openai", "typer", "rich")
WITHOUT_EXTRAS = """
import sys


class Absent:
    '''An extra that is not installed, as far as arm_lens can see. (TransformerLens brings some of them.)'''

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {extras!r} and importer().partition(".")[0] == "arm_lens":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


def importer():
    frame = sys._getframe(1)
    while frame.f_globals["__name__"] == "__main__" or "importlib" in frame.f_globals["__name__"]:
        frame = frame.f_back
        if frame is None:
            return ""
    return frame.f_globals["__name__"]


sys.meta_path.insert(0, Absent())
"""
FIT = """
from arm_lens import ActivationRewardModel, HeadSet, load_model
from arm_lens.judge_model import labelled_responses

model = load_model()
examples = labelled_responses("polite", 8, split="train", seed=0)
reward = ActivationRewardModel.fit(model, examples, selector=HeadSet.of(6, 8, [(4, 1)]))
reward.save(sys.argv[1])
again = ActivationRewardModel.load(sys.argv[1], model)
prompts, responses = [one.prompt for one in examples], [one.response for one in examples]
assert (again.score(prompts, responses) == reward.score(prompts, responses)).all()
"""


@pytest.mark.slow
def test_a_strangers_script_checks_clean_against_the_installed_package(tmp_path):
    pytest.importorskip("mypy")
    script = tmp_path / "stranger.py"
    script.write_text(textwrap.dedent(STRANGER), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), script.name]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    revealed = [
        line.partition('Revealed type is "')[2].rstrip('"') for line in found.stdout.splitlines() if "Revealed" in line
    ]
    assert revealed == REVEALED


@pytest.mark.slow
def test_a_reward_model_needs_none_of_the_extras(tmp_path):
    script = tmp_path / "bare.py"
    script.write_text(WITHOUT_EXTRAS.format(extras=EXTRAS) + FIT, encoding="utf-8")
    found = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "saved")], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
