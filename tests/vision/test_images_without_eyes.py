"""Judges that see nothing, asked about images: no mark is counted as text."""

from __future__ import annotations

from vision_models import picture

from arm_lens.judges.controls import LengthJudge


def test_the_length_of_a_response_is_that_of_its_words():
    shown = [{"role": "assistant", "content": [{"type": "image", "image": picture(1)}, {"type": "text", "text": "so"}]}]
    # a new line stands between image and text
    assert LengthJudge().score(["draw"] * 2, [shown, "so"]).tolist() == [3, 2]
