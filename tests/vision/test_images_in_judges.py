"""Judges whose prompts have images: fitted, saved, loaded elsewhere, and refused where they cannot see."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from vision_examples import EXAMPLES, OPTIONS, TEMPLATE, arm, asked
from vision_models import picture, save

from arm_lens import GenerativeJudge, LabelledResponse, SparseAttentionVectors, load_judge, load_model
from arm_lens.engine.images import NoImagesError
from arm_lens.engine.language_model import language_model
from arm_lens.engine.prefix_cache import common_prefix
from arm_lens.engine.sampling import sample_tokens
from arm_lens.engine.tokens import pad
from arm_lens.judges.artefact import ArtefactError
from arm_lens.judges.artefact_images import OtherPixelsWarning
from arm_lens.judges.base import SkippedWarning
from arm_lens.judges.chat import ChatTemplateError
from arm_lens.judges.options import ReadingOptions
from arm_lens.judges.questions import ClippedPromptWarning, encode_questions, questions_of
from arm_lens.preferences.images import as_image
from arm_lens.storage import digest_of

PROMPTS, RESPONSES = [asked(7), "no image at all", asked(8, "And this?")], ["a cat", "a dog", "it is"]


LOADS = """
import json, sys
from arm_lens import load_judge
from arm_lens.preferences.images import as_image
judge = load_judge(sys.argv[1])
prompts = [as_image(sys.argv[2]).mark + "\\nWhat is it?", "no image at all"]
print(json.dumps(judge.score(prompts, ["a cat", "a dog"]).tolist()))
"""


@pytest.mark.parametrize("kind", ["reward model", "few-shot", "sav"])
def test_what_was_saved_judges_as_before_in_another_process_with_its_demonstrations_images(kind, seeing_of, tmp_path):
    model = seeing_of("llava").model
    judge = {
        "reward model": lambda: arm(model),
        "few-shot": lambda: GenerativeJudge.fit(
            model, EXAMPLES, question=OPTIONS, reading=ReadingOptions(demonstrations=2)
        ),
        "sav": lambda: SparseAttentionVectors.fit(model, EXAMPLES, question=OPTIONS, heads=3),
    }[kind]()
    found = judge.score(PROMPTS, RESPONSES)
    assert found.unique().numel() > 1
    folder = judge.save(tmp_path / "judge")
    assert json.loads((folder / "judge.json").read_text())["images"] == {
        "processor": "LlavaProcessor", "pixels": type(model.images.processor.image_processor).__name__,
        "settings": digest_of(model.images.settings),
    }  # fmt: skip
    assert torch.equal(load_judge(folder, model).score(PROMPTS, RESPONSES), found)
    picture(7).save(tmp_path / "picture.png")
    done = subprocess.run(
        [sys.executable, "-c", LOADS, str(folder), str(tmp_path / "picture.png")],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == pytest.approx(found[:2].tolist(), abs=1e-5)


def test_a_reward_function_of_trl_sees_the_images_of_messages_and_of_columns(seeing_of):
    reward = arm(seeing_of("llava").model)
    expected = reward.score([asked(7), asked(8), "no image"], RESPONSES).tolist()
    bare = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]
    plain = [{"role": "user", "content": "What is it?"}]
    pictures = [[picture(7)], [picture(8)], []]
    for prompt in (bare, plain, "What is it?"):
        prompts = [prompt, prompt, "no image"]
        assert reward(prompts=prompts, completions=RESPONSES, images=pictures) == pytest.approx(expected, abs=1e-6)
    one = [picture(7), picture(8), None]
    assert reward(prompts=[plain, plain, "no image"], completions=RESPONSES, image=one) == pytest.approx(
        expected, abs=1e-6
    )
    filled = [asked(7), asked(8), "no image"]  # as TRL gives them, next to the column
    assert reward(prompts=filled, completions=RESPONSES, images=pictures) == pytest.approx(expected, abs=1e-6)
    with pytest.warns(SkippedWarning, match=r"row 1: images has 2 images for 1 place"):
        found = reward(prompts=[bare, bare], completions=RESPONSES[:2], images=[pictures[0], [picture(7), picture(8)]])
    assert found == [pytest.approx(expected[0], abs=1e-6), None]


def test_other_pixels_and_forged_images_of_a_saved_judge_are_said(seeing_of, tmp_path, monkeypatch):
    from safetensors.torch import load, save_file

    from arm_lens.storage import digest_of_bytes

    model = seeing_of("llava").model
    folder = GenerativeJudge.fit(model, EXAMPLES, question=OPTIONS, reading=ReadingOptions(demonstrations=2)).save(
        tmp_path / "few"
    )
    record = json.loads((folder / "judge.json").read_text())

    def rewritten(tensors=None, **changes):
        [file] = folder.glob("tensors-*")
        if tensors is not None:
            save_file(tensors, file)
            record["tensors"] = digest_of_bytes(file.read_bytes())
            file.rename(folder / f"tensors-{record['tensors'][:16]}.safetensors")
        record.update(changes)
        record["digest"] = digest_of({key: value for key, value in record.items() if key != "digest"})
        (folder / "judge.json").write_text(json.dumps(record))

    rewritten(images=record["images"] | {"pixels": "AnotherImageProcessor"})
    with pytest.warns(OtherPixelsWarning, match="AnotherImageProcessor read images; here LlavaProcessor with"):
        load_judge(folder, model)
    tensors = load(next(folder.glob("tensors-*")).read_bytes())
    names = [name for name in tensors if name.startswith("image_")]
    assert len(names) == 2
    swapped = tensors | {names[0]: tensors[names[1]].clone(), names[1]: tensors[names[0]].clone()}
    damaged = tensors | {names[0]: tensors[names[0]][:40].clone()}
    for broken, reason in ((swapped, "is another image"), (damaged, "cannot be decoded|not an image|is another image")):
        rewritten(broken)
        with pytest.raises(ArtefactError, match=reason):
            load_judge(folder, model)


def test_a_control_token_in_a_text_that_was_given_is_text(seeing_of):
    model = seeing_of("llava").model
    token = model.images.token
    examples = [LabelledResponse(asked(1), f"a {token} b", True), LabelledResponse("none", f"{token}{token}", True)]
    with_image, without = encode_questions(model, OPTIONS, questions_of(examples, TEMPLATE))
    assert model.images.placeholder not in with_image + without
    assert min(with_image) < 0 <= min(without)
    judge = GenerativeJudge(model, question=OPTIONS)
    assert judge.score([one.prompt for one in examples], [one.response for one in examples]).isfinite().all()


def test_prompts_share_an_image_if_it_is_the_same(seeing_of):
    model = seeing_of("idefics3").model
    same = [LabelledResponse(asked(5), response, True) for response in ("one", "two")]
    other = LabelledResponse(asked(6), "one", True)
    one, two, three = encode_questions(model, OPTIONS, questions_of([*same, other], TEMPLATE))
    placeholders = sum(token < 0 for token in one)
    assert sum(token < 0 for token in common_prefix([one, two])) == placeholders > 0
    assert not any(token < 0 for token in common_prefix([one, three]))
    assert GenerativeJudge(model, question=OPTIONS).prompt_of(same[0]).count("[image ") == 1


def test_a_prompt_that_is_too_long_loses_whole_images(seeing_of, monkeypatch):
    model = seeing_of("llava").model
    long = [{"role": "user", "content": [
        {"type": "image", "image": picture(1)}, {"type": "text", "text": "x" * 40}, {"type": "image", "image": picture(2)},
        {"type": "text", "text": "What is it?"},
    ]}]  # fmt: skip
    questions = questions_of([LabelledResponse(long, "a cat", True)], TEMPLATE)
    [whole] = encode_questions(model, OPTIONS, questions)
    images = len(model.images.seen_in(whole))
    assert images == 2
    options = OPTIONS.model_copy(update={"on_too_long": "clip"})
    seen = set()
    for context in range(len(whole) - 1, 42, -8):  # all but the prompt has 42
        monkeypatch.setattr(model, "n_ctx", context)
        with pytest.warns(ClippedPromptWarning):
            [found] = encode_questions(model, options, questions)
        assert len(found) <= context
        seen.add(len(model.images.seen_in(found)))
    assert seen == {0, 1}


@pytest.mark.parametrize("model_class", ["llama"])
def test_models_that_read_text_only_say_so_and_name_the_question(model_class, model_of):
    examples = [LabelledResponse("no image", "fine", True), LabelledResponse(asked(1), "a cat", True, id="row 7")]
    judge = GenerativeJudge(model_of(model_class))
    with pytest.raises(NoImagesError, match=r"row 7 has an image in it, and .* cannot read it: .* reads text only"):
        encode_questions(judge.model, judge.question, questions_of(examples, judge.template))
    with pytest.raises(NoImagesError, match="has an image in it"):
        judge.score(["a", asked(1)], ["b", "c"])


def test_a_processor_that_cannot_be_loaded_leaves_the_text_and_installs_nothing(tmp_path, monkeypatch):
    folder = save("llava", tmp_path / "blind")
    (folder / "processor_config.json").write_text("damaged")

    def installed(*command, **_):
        raise AssertionError(f"somebody wants to run {command}")

    for name in ("check_call", "run", "Popen"):
        monkeypatch.setattr(subprocess, name, installed)
    model = language_model(load_model(folder))
    judge = GenerativeJudge(model, question=OPTIONS)
    assert judge.score(["no image"], ["fine"]).isfinite().all()
    with pytest.raises(NoImagesError, match=r"the processor of .* cannot be loaded .*pip install 'arm-lens\[vision\]'"):
        judge.score([asked(1)], ["a cat"])


def test_a_template_without_images_is_refused(seeing_of):
    model = seeing_of("llava").model
    before = model.tokenizer.chat_template
    try:
        model.tokenizer.chat_template = (
            "{% for message in messages %}{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}"
            "{% endfor %}{% endfor %}{% if add_generation_prompt %}:{% endif %}"
        )
        with pytest.raises(ChatTemplateError, match="writes 0 of 1 images"):
            GenerativeJudge(model, question=OPTIONS).score([asked(1)], ["a cat"])
    finally:
        model.tokenizer.chat_template = before


def test_half_a_mark_is_an_error(seeing_of):
    model = seeing_of("llava").model
    mark = as_image(picture(1)).mark
    with pytest.raises(ValueError, match="a part of an image's mark"):
        model.encode([f"a {mark} b {mark[3:]}"], chat=True)


def test_an_image_that_the_processor_does_not_read_is_named_and_can_be_left_out(seeing_of, monkeypatch):
    model = seeing_of("llava").model
    processor = model.images.processor
    own = type(processor.image_processor).preprocess

    def refusing(self, images, *args, **kwargs):
        if images[0][0].size == (1, 300):
            raise ValueError("absolute aspect ratio must be smaller than 200, got 300.0")
        return own(self, images, *args, **kwargs)

    monkeypatch.setattr(type(processor.image_processor), "preprocess", refusing)
    thin = [{"role": "user", "content": [{"type": "image", "image": picture(9, 1, 300)}]}]
    judge = GenerativeJudge(model, question=OPTIONS)
    with pytest.raises(NoImagesError, match=r"example 1: .*1 x 300: LlavaProcessor does not read it \(absolute aspect"):
        judge.score([asked(1), thin], ["a cat", "a cat"])
    assert list(judge.too_long([asked(1), thin], ["a cat", "a cat"])) == [1]


def test_a_placeholder_of_an_image_is_never_sampled(seeing_of, monkeypatch):
    model = seeing_of("llava").model
    placeholder = model.images.placeholder
    own = model.extend

    def leaning(*args, **kwargs):
        logits = own(*args, **kwargs)
        return logits.index_fill(-1, torch.tensor([placeholder]), 100.0) if logits.shape[-1] > placeholder else logits

    prompts = encode_questions(model, OPTIONS, questions_of(EXAMPLES[:1], TEMPLATE))
    monkeypatch.setattr(model, "extend", leaning)
    monkeypatch.setattr("arm_lens.engine.sampling._can_read_on", lambda *_: True)
    [written] = sample_tokens(model, prompts, torch.full((1, 4), 0.5))
    assert len(written) == 4 and placeholder not in written
    assert model.last_logits(pad([prompts[0] + written])).isfinite().all()
