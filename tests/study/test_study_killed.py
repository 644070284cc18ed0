"""A study that is killed over and over is, byte for byte, the one that nobody interrupted."""

from __future__ import annotations

import pytest
from killing import KILLS, Victims

from arm_lens.storage import LOCK
from arm_lens.study import HeadStudy

STUDIES = """
import sys, torch
torch.set_num_threads(1)
from arm_lens import ActivationRewardModel, HeadSet, load_model
from arm_lens.judge_model import labelled_responses
from arm_lens.judges.options import ReadingOptions
from arm_lens.study import study_heads
model = load_model(sys.argv[1])
names = ("positive", "polite", "brief")
rewards = {
    name: ActivationRewardModel.fit(
        model, labelled_responses(name, 12, split="train", seed=0), criterion=name,
        selector=HeadSet.of(3, 4, [(0, number), (2, 1)]), reading=ReadingOptions(readings=4, demonstrations=2),
    )
    for number, name in enumerate(names)
}
examples = {name: labelled_responses(name, 10, split="test", seed=1) for name in names}
def victim(out):
    study_heads(rewards, examples, out=out, standard_error=0.2, random_sets=2)
"""


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".checkpoint"
    }


@pytest.mark.slow
def test_kills_leave_no_trace(folder_of, tmp_path):
    victims, seen = Victims(STUDIES, str(folder_of("llama"))), []

    def parts():
        return len(list((tmp_path / "killed").rglob("*.parquet")))

    try:
        seconds = min([victims.run(str(tmp_path / name)) for name in ("whole", "again")])  # the first takes longer
        for _ in victims.kill_at_random(KILLS, 0.6 * seconds, str(tmp_path / "killed"), state=parts):
            seen.append(parts())
        victims.run(str(tmp_path / "killed"))
    finally:
        victims.close()
    whole, killed = contents(tmp_path / "whole"), contents(tmp_path / "killed")
    assert killed == whole and LOCK in whole
    assert HeadStudy.load(tmp_path / "killed").curve.equals(HeadStudy.load(tmp_path / "whole").curve)
    assert len(set(seen)) > 1, "the kills came too early or too late to tell anything"
