"""Judges that see nothing, asked about images: refused before anything is sent, and no mark is counted as text."""

from __future__ import annotations

import pytest
from judges.chat_server import ChatServer
from judges.endpoint_support import KEY, judge_at, longer
from vision_examples import asked
from vision_models import picture

from arm_lens.engine.images import NoImagesError
from arm_lens.judges.checks import SkippedWarning
from arm_lens.judges.controls import LengthJudge
from arm_lens.preferences import LabelledResponse


def test_no_image_is_sent_to_an_endpoint_as_its_mark(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ChatServer(longer) as server:
        judge = judge_at(server)
        with pytest.raises(NoImagesError, match=r"example 1 has an image in it, and .* images are not sent"):
            judge.score(["plain", asked(1)], ["a cat", "a cat"])
        few = judge_at(server, examples=(LabelledResponse(asked(2), "a dog", True, id="shown"),))
        with pytest.raises(NoImagesError, match="shown has an image in it"):
            few.score(["plain"], ["a cat"])
        assert not server.received
        with pytest.warns(SkippedWarning, match="row 1: no reward"):
            rewards = judge(prompts=["plain", asked(1)], completions=["a cat", "a cat"])
        assert [one is None for one in rewards] == [False, True]


def test_the_length_of_a_response_is_that_of_its_words():
    shown = [{"role": "assistant", "content": [{"type": "image", "image": picture(1)}, {"type": "text", "text": "so"}]}]
    assert LengthJudge().score(["draw"] * 2, [shown, "so"]).tolist() == [
        3,
        2,
    ]  # a new line stands between image and text
