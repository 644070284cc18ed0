"""Labelled responses to questions about pictures, and a reward model of them."""

from __future__ import annotations

from vision_models import picture

from arm_lens import ActivationRewardModel, HeadSet, JudgeTemplate, LabelledResponse
from arm_lens.judges.options import QuestionOptions, ReadingOptions

TEMPLATE = JudgeTemplate(header="", scalar="Asked: {prompt} Said: {response} Good?", cue="")
OPTIONS = QuestionOptions(template=TEMPLATE, batch_size=2)


def asked(number, text="What is it?"):
    """A prompt with a picture."""
    parts = [{"type": "image", "image": picture(number)}, {"type": "text", "text": text}]
    return [{"role": "user", "content": parts}]


EXAMPLES = [LabelledResponse(asked(number), f"answer {number}", bool(number % 2)) for number in range(4)]


def arm(model):
    """A reward model with two given heads."""
    return ActivationRewardModel.fit(
        model, EXAMPLES, criterion="seen", question=OPTIONS, selector=HeadSet.of(3, 4, [(0, 1), (2, 3)]),
        reading=ReadingOptions(readings=3, demonstrations=1),
    )  # fmt: skip
