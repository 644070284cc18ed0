"""Images sent to an endpoint over real HTTP: what arrives, what it may cost, and what is refused before anything is sent."""

from __future__ import annotations

import io

import numpy as np
import pytest
from judges.chat_server import PROMPT_TOKENS_PER_IMAGE, ChatServer
from judges.endpoint_support import KEY, judge_at, longer, says, sure
from PIL import Image as Pillow
from vision_examples import asked
from vision_models import picture

from arm_lens.engine.images import NoImagesError
from arm_lens.judges.checks import SkippedWarning
from arm_lens.judges.endpoint.errors import BudgetReachedError, EndpointError
from arm_lens.judges.template import JudgeTemplate
from arm_lens.preferences import LabelledResponse, PreferencePair
from arm_lens.preferences.images import as_image

SHOWN = (LabelledResponse(asked(2), "a dog", True, id="shown"), LabelledResponse("plain", "so", False))


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def prompt_with(*images):
    return [
        {
            "role": "user",
            "content": [*({"type": "image", "image": one} for one in images), {"type": "text", "text": "?"}],
        }
    ]


def encoded(picture, format, **options):
    out = io.BytesIO()
    picture.save(out, format, **options)
    return out.getvalue()


def turned():
    """A JPEG that a viewer turns by a quarter."""
    exif = Pillow.Exif()
    exif[0x0112] = 6
    return encoded(picture(4, 40, 16), "JPEG", exif=exif)


def see_through():
    half = picture(5).convert("RGBA")
    half.putalpha(120)
    return encoded(half, "PNG")


def moving():
    return encoded(picture(6), "WEBP", save_all=True, append_images=[picture(7)], lossless=True)


PLAIN = {
    "PNG": encoded(picture(1), "PNG"), "JPEG": encoded(picture(2), "JPEG"), "WEBP": encoded(picture(3), "WEBP"),
    "grey": encoded(picture(3).convert("L"), "PNG"),
}  # fmt: skip
OTHERS = {
    "turned": turned(), "see-through": see_through(), "moving": moving(), "BMP": encoded(picture(8), "BMP"),
    "GIF": encoded(picture(9), "GIF"), "CMYK": encoded(picture(10).convert("CMYK"), "JPEG"),
}  # fmt: skip


@pytest.mark.parametrize("name", [*PLAIN, *OTHERS])
def test_the_picture_that_arrives_is_the_one_that_every_judge_sees(name):
    content = (PLAIN | OTHERS)[name]
    with ChatServer(longer) as server:
        judge_at(server).score([prompt_with(content)], ["a cat"])
    [(_, (media, raw, detail, found))] = [one for one in server.received[0].parts if not isinstance(one[1], str)]
    assert np.array_equal(np.asarray(found), np.asarray(as_image(content).open()))
    assert media == f"image/{Pillow.open(io.BytesIO(raw)).format.lower()}" and detail is None
    assert (raw == content) == (name in PLAIN)


@pytest.mark.parametrize("layout", ["scalar", "ranked"])
def test_images_stand_where_they_are_in_questions_and_demonstrations(layout):
    shown = (PreferencePair(asked(2), "a dog", "a mill", id="shown"),)
    prompt = [{"role": "user", "content": [
        {"type": "text", "text": "Left"}, {"type": "image", "image": picture(3)}, {"type": "text", "text": "or right"},
        {"type": "image", "image": picture(4)},
    ]}]  # fmt: skip
    with ChatServer(longer) as server:
        judge_at(server, examples=shown, layout=layout, image_detail="low").margins([prompt], ["one"], ["the other"])
    template, as_prompt = JudgeTemplate(), LabelledResponse(prompt, "one", True).prompt
    for one in server.received:
        roles = [role for role, _ in one.parts]
        assert {role for role, part in one.parts if not isinstance(part, str)} == {"user"}
        assert {part[2] for _, part in one.parts if not isinstance(part, str)} == {"low"}
        at_end = [part for role, part in one.parts][len(roles) - roles[::-1].index("assistant") :]
        kinds = ["text" if isinstance(part, str) else "image" for part in at_end]
        assert kinds == ["text", "image", "text", "image", "text"]
        for part, number in zip(at_end[1::2], (3, 4), strict=True):
            assert np.array_equal(np.asarray(part[3]), np.asarray(picture(number)))
        joined = "".join(
            part if isinstance(part, str) else as_image(picture(3 + n // 2)).mark for n, part in enumerate(at_end)
        )
        asks = template.ranked_question if layout == "ranked" else template.question
        responses = [("one", "the other"), ("the other", "one")] if layout == "ranked" else [("one",), ("the other",)]
        assert joined in {asks(as_prompt, *some) for some in responses}
        first = next(part for _, part in one.parts if not isinstance(part, str))
        assert np.array_equal(np.asarray(first[3]), np.asarray(picture(2)))


def test_a_request_with_an_image_is_asked_once_and_one_with_other_pixels_again(tmp_path):
    with ChatServer(sure) as server:
        judge = judge_at(server, cache=tmp_path)
        first = judge.score([asked(1), asked(1)], ["a cat", "a cat"])
        assert judge_at(server, cache=tmp_path).score([asked(1)], ["a cat"]).tolist() == first[:1].tolist()
        assert len(server.received) == 1
        judge_at(server, cache=tmp_path).score([asked(2)], ["a cat"])
        judge_at(server, cache=tmp_path, image_detail="high").score([asked(1)], ["a cat"])
        assert len(server.received) == 3
    assert not any(b"base64" in path.read_bytes() for path in tmp_path.rglob("*.json"))


def test_the_budget_counts_images_as_stated_and_is_never_exceeded():
    options = {"prices": (1000.0, 0.0), "concurrency": 1}
    with ChatServer(says("Yes")) as server:
        with pytest.raises(ValueError, match=r"example 1 has an image in it.*pass image_tokens=\.\.\."):
            judge_at(server, budget=9.0, **options).score(["plain", asked(1)], ["a cat", "a cat"])
        judge_at(server, budget=9.0, **options).score(["plain"], ["a cat"])
        assert len(server.received) == 1
        free = judge_at(server, **options)
        free.score([asked(1)], ["a cat"])
        billed = free.usage.cost * 1e6 / 1000
        assert free.usage.prompt_tokens == billed > PROMPT_TOKENS_PER_IMAGE
        stated = {"budget": 0.8, "image_tokens": 900, **options}
        with pytest.raises(BudgetReachedError, match="may cost up to 1"):
            judge_at(server, **stated).score([asked(2)], ["a cat"])
        assert len(server.received) == 2
        judge = judge_at(server, **stated | {"image_tokens": PROMPT_TOKENS_PER_IMAGE})
        judge.score([asked(2)], ["a cat"])
        assert len(server.received) == 3 and 0 < judge.usage.cost < 0.8


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"images": False}, "and judge reads text only"),
        ({"max_image_bytes": 100}, r"takes [\d,]+ bytes, more than max_image_bytes \(100\): .*; make it smaller"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anything_is(options, reason):
    with ChatServer(longer) as server:
        judge = judge_at(server, **options)
        with pytest.raises(NoImagesError, match=f"example 1 has an image in it.* {reason}"):
            judge.score(["plain", asked(1)], ["a cat", "a cat"])
        few = judge_at(server, examples=SHOWN, **options)
        with pytest.raises(NoImagesError, match=f"shown has an image in it.* {reason}"):
            few.score(["plain"], ["a cat"])
        assert not server.received
        with pytest.warns(SkippedWarning, match="row 1: no reward"):
            rewards = judge(prompts=["plain", asked(1)], completions=["a cat", "a cat"])
        assert [one is None for one in rewards] == [False, True]


def test_an_image_in_a_system_message_is_refused():
    with ChatServer(longer) as server:
        judge = judge_at(server, system=as_image(picture(1)).mark)
        with pytest.raises(NoImagesError, match="system message has an image"):
            judge.score(["plain"], ["a cat"])
        assert not server.received


def test_a_file_that_changed_since_it_was_read_is_not_sent(tmp_path):
    path = tmp_path / "cat.png"
    picture(77).save(path)  # whose bytes no other test has
    as_image(path)
    prompt = prompt_with(path)
    with ChatServer(longer) as server:
        judge = judge_at(server)
        question = judge.scalar_questions([prompt], ["a cat"])
        picture(2).save(path)
        with pytest.raises(ValueError, match=r"cat\.png has changed since it was read"):
            judge.verdict(question)
        assert not server.received


def test_what_an_endpoint_says_about_images_is_said():
    with (
        ChatServer(longer, refuse_images=True) as server,
        pytest.raises(EndpointError, match=r"failed on example 0 \(400\): .*does not support images"),
    ):
        judge_at(server).score([asked(1)], ["a cat"])
