"""Prompts with images through every family, against raw Hugging Face models and their processors."""

from __future__ import annotations

from importlib.metadata import version

import pytest
import torch
from vision_models import FAMILIES, picture

from arm_lens import GenerativeJudge, JudgeTemplate, LabelledResponse
from arm_lens.engine import Replay, steer
from arm_lens.engine.images import NoImagesError
from arm_lens.engine.reading import read_all
from arm_lens.engine.tokens import pad
from arm_lens.judges.options import QuestionOptions
from arm_lens.judges.questions import encode_questions, questions_of, verdict_tokens_of
from arm_lens.preferences.images import as_image

WRONG = {"gemma3"} if version("transformer-lens").startswith("3.") else set()
"""Families whose images the installed TransformerLens computes wrongly."""
SEEING = [one for one in FAMILIES if one not in WRONG]
TEMPLATE = JudgeTemplate(header="", scalar="Asked: {prompt} Said: {response} Good?", cue="")
OPTIONS = QuestionOptions(template=TEMPLATE, batch_size=3)
RED, BLUE, TALL = (lambda: picture(1)), (lambda: picture(2, 40, 20)), (lambda: picture(3, 16, 50))
PROMPTS = [  # none, one and several images, at the beginning, within and at the end of a text
    ["No image."],
    [RED, "What is it?"],
    ["Left ", BLUE, " or right ", TALL, "?"],
    ["Which one? ", TALL],
    ["Twice ", RED, " and ", RED, " again."],
]
RESPONSES = ["fine", "a cat", "the left one", "it is so", "yes"]


def examples():
    """The prompts as data."""
    messages = [
        [{"role": "user", "content": [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part()}
            for part in prompt
        ]}]
        for prompt in PROMPTS
    ]  # fmt: skip
    return [LabelledResponse(prompt, response, True) for prompt, response in zip(messages, RESPONSES, strict=True)]


def sequences(model):
    return encode_questions(model, OPTIONS, questions_of(examples(), TEMPLATE))


def raw_inputs(seeing):
    """What the processor makes of each question, put by hand."""
    found = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        parts = ["Asked: "]
        for number, part in enumerate(prompt):
            # text parts stand below each other in a message
            between = "\n" if number else ""
            parts += [between, part] if isinstance(part, str) else [between, part()]
        content: list[dict] = []
        for part in [*parts, f" Said: {response} Good?"]:
            if isinstance(part, str) and content and content[-1]["type"] == "text":
                content[-1]["text"] += part
            elif part != "":
                content.append(
                    {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part}
                )
        images = [part["image"] for part in content if part["type"] == "image"]
        text = seeing.processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        found.append(
            seeing.processor(
                text=[text], images=[images] if images else None, add_special_tokens=False, return_tensors="pt"
            )
        )
    return found


def raw_logits(seeing, mask=None, values=None):
    """Next-token logits of the raw model, with values written at the last token before each output projection."""
    handles = []
    for layer, projection in enumerate(seeing.outputs() if mask is not None else ()):

        def write(_, inputs, layer=layer):
            z = inputs[0].clone().unflatten(-1, values.shape[1:])
            z[:, -1, mask[layer]] = values[layer, mask[layer]]
            return (z.flatten(-2),)

        handles.append(projection.register_forward_pre_hook(write))
    try:
        with torch.no_grad():
            return torch.cat([seeing.raw(**inputs).logits[:, -1] for inputs in raw_inputs(seeing)])
    finally:
        for handle in handles:
            handle.remove()


def close(found, expected):
    return torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)


def steering(model):
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(6, model.n_layers, model.n_heads, generator=generator) < 0.4
    return masks, torch.randn(model.n_layers, model.n_heads, model.d_head, generator=generator)


@pytest.mark.parametrize("family", SEEING)
def test_tokens_and_logits_are_those_of_hugging_face_one_by_one_and_in_a_batch(family, seeing_of):
    seeing = seeing_of(family)
    assert seeing.model.findings.blind is None
    found, inputs = sequences(seeing.model), raw_inputs(seeing)
    placeholder = seeing.model.images.placeholder
    for sequence, expected in zip(found, inputs, strict=True):
        assert [placeholder if one < 0 else one for one in sequence] == expected["input_ids"][0].tolist()
    assert [min(sequence) < 0 for sequence in found] == [False, True, True, True, True]
    expected = raw_logits(seeing)
    assert (expected[1:] - expected[:1]).abs().amax(dim=1).min() > 0.01
    close(torch.cat([seeing.model.last_logits(pad([sequence])) for sequence in found]), expected)
    close(seeing.model.last_logits(pad(found)), expected)
    close(seeing.model.last_logits(pad(found, side="right")), expected)


@pytest.mark.parametrize("family", SEEING)
def test_injection_reading_and_replay_are_those_of_hugging_face(family, seeing_of):
    seeing = seeing_of(family)
    model, prompts = seeing.model, sequences(seeing.model)
    masks, values = steering(model)
    expected = torch.stack([raw_logits(seeing, mask, values) for mask in masks], dim=1)
    with steer(model, masks[0], values):
        close(model.last_logits(pad(prompts)), expected[:, 0])
        close(torch.cat([model.last_logits(pad([one])) for one in prompts]), expected[:, 0])
    replay = Replay(model, prompts, verdict_tokens_of(model.tokenizer, OPTIONS), batch_size=3)
    close(replay.logits(masks, values), expected)
    assert replay.exact and not replay.masks_as_rows

    seen = []
    handles = [one.register_forward_pre_hook(lambda _, z: seen.append(z[0][:, -1])) for one in seeing.outputs()]
    try:
        with torch.no_grad():
            for inputs in raw_inputs(seeing):
                seeing.raw(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    activations = torch.cat(seen).view(len(prompts), model.n_layers, model.n_heads, model.d_head)
    close(read_all(model, prompts, batch_size=2), activations)


@pytest.mark.parametrize("family", SEEING)
def test_a_judge_gives_the_probability_that_the_raw_model_gives(family, seeing_of):
    seeing = seeing_of(family)
    judge = GenerativeJudge(seeing.model, question=OPTIONS)
    pairs = examples()
    found = judge.score([one.prompt for one in pairs], [one.response for one in pairs])
    probabilities = raw_logits(seeing).softmax(dim=-1)
    yes = list(verdict_tokens_of(seeing.model.tokenizer, OPTIONS).positive)
    close(found, probabilities[:, yes].sum(dim=-1))


@pytest.mark.parametrize("family", SEEING)
def test_images_of_any_shape_are_encoded_or_refused_in_words(family, seeing_of):
    reader = seeing_of(family).model.images
    for width, height in ((1, 1), (3, 20), (300, 1), (1, 300)):
        mark = as_image(picture(3, width, height)).mark
        if family.startswith("qwen") and max(width, height) == 300:
            with pytest.raises(NoImagesError, match=r"row 3: .*does not read it \(absolute aspect"):
                reader.encode(mark, "row 3")
        else:
            assert reader.seen_in(reader.encode(mark))


def test_images_that_are_computed_wrongly_are_refused_in_words_and_text_is_not(seeing_of):
    seeing = seeing_of("gemma3")
    if "gemma3" not in WRONG:
        assert seeing.model.findings.blind is None
        return
    with pytest.raises(
        NoImagesError, match=r"does not see what .* of transformers sees: logits after images differ by"
    ):
        sequences(seeing.model)
    text = examples()[:1]
    GenerativeJudge(seeing.model, question=OPTIONS).score([text[0].prompt], [text[0].response])
