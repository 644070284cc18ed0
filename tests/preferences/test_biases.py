"""Injected biases: what was said is still said, in order and nothing else, and what was added is the bias."""

from __future__ import annotations

import json
import random
import re

import pytest
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from arm_lens.preferences import PreferenceFieldError
from arm_lens.preferences.biases import BIASES, add_bias

QUICK = settings(max_examples=150, derandomize=True, deadline=None)

CODE = "```python\ndef double(x):\n    # Two. Not three.\n    return 2 * x\n\n\nprint(double(3))\n```"
LIST = "1. Boil the water. Salt it.\n2. Add the pasta.\n   Stir. Wait."
TABLE = "| town | people |\n|---|---|\n| Ulm | 126,000 |"
PROSE = 'Dr. Jones paid $3.50 on Jan. 5 for it. He said: "Stop. Go." See https://a.org/b.c?d=e. It works, e.g. At home!'

paragraphs = st.sampled_from(
    [
        PROSE,
        "Paris.",
        "Yes",
        "It is not so. Nobody knows why! Do you?",
        "Take these things:",
        "Take these things:\n- a hat\n- a coat. Both. Warm.",
        "Roses are red,\nViolets are blue.\nSugar is sweet.",
        "def double(x):\n    return 2 * x",
        '{\n  "a": 1\n}',
        "## Part two",
        "> He came. He saw.",
        "Ünï cödé. Äh! 日本語。テスト。",
        CODE,
        LIST,
        TABLE,
    ]
)
responses = st.lists(paragraphs, min_size=1, max_size=6).map("\n\n".join)
seeds = st.integers(0, 10_000)


def without_added_paragraphs(biased: str, plain: str) -> tuple[str, list[str]]:
    """What is left when the lines that are not in the plain text are taken out, and those that are not blank."""
    wanted, kept, added = plain.split("\n"), [], []
    for line in biased.split("\n"):
        place = kept if len(kept) < len(wanted) and line == wanted[len(kept)] else added
        place.append(line)
    return "\n".join(kept), [line for line in added if line]


def without_layout(text: str) -> list[str]:
    """The words of a text without headings of one or two words and bullet points."""
    text = re.sub(r"(?m)^(#{1,3} |\*\*)(Answer|Response|Reply|(Part|Section|Point) \d+)(\*\*)?$", "", text)
    return re.sub(r"(?m)^[-*] ", "", text).split()


@QUICK
@given(plain=responses, bias=st.sampled_from(["length", "positivity"]), seed=seeds)
def test_taking_out_the_added_paragraphs_gives_back_the_response(plain, bias, seed):
    left, added = without_added_paragraphs(add_bias(plain, bias, seed=seed), plain)
    assert left == plain
    assert len(added) >= 2


@QUICK
@given(plain=responses, seed=seeds)
def test_taking_out_headings_and_bullet_points_gives_back_the_words_of_the_response(plain, seed):
    assert without_layout(add_bias(plain, "format", seed=seed)) == without_layout(plain)


@QUICK
@given(plain=responses, bias=st.sampled_from(BIASES), seed=seeds)
def test_code_lists_tables_and_quotes_stay_as_they_are(plain, bias, seed):
    biased = add_bias(plain, bias, seed=seed)
    for part in (CODE, LIST, TABLE, "def double(x):\n    return 2 * x", '{\n  "a": 1\n}', "> He came. He saw."):
        assert biased.count(part) == plain.count(part)
        assert f"- {part}" not in biased


@QUICK
@given(plain=responses, seed=seeds)
def test_padding_doubles_the_response_but_not_more(plain, seed):
    _, added = without_added_paragraphs(add_bias(plain, "length", seed=seed), plain)
    sentences = re.findall(r"[^.]+\.", " ".join(added))
    assert len(sentences) >= 3
    total = sum(len(sentence.strip()) for sentence in sentences)
    assert total >= len(plain)
    assert len(sentences) == 3 or total - len(sentences[-1]) < len(plain) + 150


def test_padding_does_not_repeat_itself():
    plain = "The river is wide here. " * 400
    _, added = without_added_paragraphs(add_bias(plain, "length", seed=0), plain)
    sentences = [sentence.strip() for sentence in re.findall(r"[^.]+\.", " ".join(added))]
    assert len(sentences) > 100
    assert len(set(sentences)) == len(sentences)


@pytest.mark.parametrize("bias", ["length", "positivity"])
def test_what_is_added_is_plain_and_denies_nothing(bias):
    added = [
        sentence for seed in range(200) for sentence in without_added_paragraphs(add_bias("7", bias, seed=seed), "7")[1]
    ]
    words = set(re.findall(r"[a-z]+", " ".join(added).lower()))
    assert not words & set("however but although wrong incorrect false maybe perhaps unsure doubt sorry cannot".split())
    assert not re.search(r"\d", " ".join(added))


def test_sentences_become_bullet_points():
    biased = add_bias(PROSE, "format", seed=1)
    heading, *points = [line for line in biased.split("\n") if line]
    assert heading.startswith(("#", "**"))
    assert [point[2:] for point in points] == [
        "Dr. Jones paid $3.50 on Jan. 5 for it.",
        'He said: "Stop. Go."',
        "See https://a.org/b.c?d=e.",
        "It works, e.g. At home!",
    ]
    assert len({point[:2] for point in points}) == 1


def test_paragraphs_of_prose_get_headings_of_their_own():
    biased = add_bias("One. Two.\n\nThree.", "format", seed=3)
    assert len(re.findall(r"(?m)^(#+ |\*\*)", biased)) == 3
    assert len(re.findall(r"(?m)^[-*] ", biased)) == 3


def test_a_list_gets_a_heading_only_and_the_words_that_lead_to_it_stay_before_it():
    assert add_bias(LIST, "format", seed=0).endswith(f"\n\n{LIST}")
    biased = add_bias("It is cold. Take these:\n- a hat\n- a coat", "format", seed=0)
    assert biased.endswith(" It is cold.\n\nTake these:\n- a hat\n- a coat")


def test_a_line_that_goes_on_belongs_to_the_list_before_it_but_not_to_a_heading():
    item = "- a hat\nthat is warm. Very warm."
    assert add_bias(item, "format", seed=0).endswith(f"\n\n{item}")
    assert re.search(r"\n\n## Hats\n([-*]) Warm\.\n\1 Blue\.$", add_bias("## Hats\nWarm. Blue.", "format", seed=0))


def test_what_is_announced_is_not_parted_from_its_announcement():
    for seed in range(10):
        assert "He said:\n\nIt is so." in add_bias("He said:\n\nIt is so.", "length", seed=seed)


@pytest.mark.parametrize("bias", BIASES)
def test_nothing_is_added_inside_a_fence_that_nothing_closes(bias):
    biased = add_bias("Here it is.\n\n```\nx = 1. Y.\n\nz = 2", bias, seed=0)
    assert biased.endswith("```\nx = 1. Y.\n\nz = 2")
    assert "Here it is.\n\n```" in biased
    assert not biased.startswith("Here")


@pytest.mark.parametrize("bias", ["length", "positivity"])
def test_padding_stands_between_paragraphs_of_prose_and_nowhere_else(bias):
    plain = f"One.\n\nTwo:\n\n{LIST}\n\n{CODE}\n\nThree.\n\nFour."
    for seed in range(20):
        biased = add_bias(plain * 2, bias, seed=seed)
        assert f"Two:\n\n{LIST}\n\n{CODE}\n\nThree." in biased
        assert ("Three.\n\nFour." in biased) == (bias == "positivity")


@pytest.mark.parametrize("bias", BIASES)
def test_the_seed_decides_and_other_seeds_decide_otherwise(bias):
    random.seed(1)
    first = [add_bias("One. Two.", bias, seed=seed) for seed in range(30)]
    random.seed(2)
    assert [add_bias("One. Two.", bias, seed=seed) for seed in range(30)] == first
    assert len(set(first)) >= 10
    assert len({add_bias("It is.", bias, seed=0), add_bias("It is.", bias, seed=10)}) == 2


@pytest.mark.parametrize("bias", BIASES)
def test_two_responses_to_one_prompt_get_the_same_additions(bias):
    for seed in range(20):
        one, two = (add_bias(town, bias, prompt="Capital of France?", seed=seed) for town in ("Paris.", "Lyon."))
        assert one.replace("Paris.", "Lyon.") == two
    prompts = [f"Question {number}?" for number in range(30)]
    assert len({add_bias("Paris.", bias, prompt=prompt, seed=0) for prompt in prompts}) >= 10


@pytest.mark.parametrize("bias", BIASES)
def test_of_messages_the_last_one_is_changed(bias):
    turns = [("assistant", "Hello. You?"), ("user", "Fine. A prime?"), ("assistant", "Seven. It is one.")]
    messages = [{"role": role, "content": content} for role, content in turns]
    biased = add_bias(messages, bias, seed=5)
    assert list(biased[:2]) == messages[:2]
    assert biased[2] == {"role": "assistant", "content": add_bias("Seven. It is one.", bias, seed=5)}
    assert messages[2]["content"] == "Seven. It is one."


def test_what_cannot_be_biased_is_refused():
    with pytest.raises(ValueError, match="unknown bias 'lenght'; known are length, format, positivity"):
        add_bias("Seven.", "lenght", seed=0)
    with pytest.raises(PreferenceFieldError, match="response is blank"):
        add_bias(" ", "length", seed=0)
    blank = [{"role": "assistant", "content": "Hi."}, {"role": "assistant", "content": " "}]
    with pytest.raises(PreferenceFieldError, match="response ends with a blank message"):
        add_bias(blank, "format", seed=0)


@pytest.mark.skipif(not (SHARED / "data" / "llmbar").is_dir(), reason="../shared/data/llmbar is not here")
def test_real_responses_keep_what_they_say():
    files = sorted((SHARED / "data" / "llmbar").rglob("*.json"))
    rows = [row for file in files for row in json.loads(file.read_text(encoding="utf-8"))]
    texts = [row[name].strip() for row in rows for name in ("output_1", "output_2") if row[name].strip()]
    assert len(texts) > 800
    bullets = 0
    for seed, plain in enumerate(texts):
        for bias in ("length", "positivity"):
            assert without_added_paragraphs(add_bias(plain, bias, seed=seed), plain)[0] == plain
        biased = add_bias(plain, "format", seed=seed)
        assert without_layout(biased) == without_layout(plain)
        bullets += bool(re.search(r"(?m)^([-*•]|\d+[.)]) ", biased))
    assert bullets > 0.9 * len(texts)
