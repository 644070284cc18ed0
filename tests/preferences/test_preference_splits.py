from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arm_lens.preferences import LabelledResponse, PreferencePair, split_preferences, text_of, unpair

QUICK = settings(max_examples=60, derandomize=True, deadline=None)


def pair(number: int, criterion: str = "", prompt: str | None = None) -> PreferencePair:
    return PreferencePair(prompt or f"prompt {number}", "better", "worse", criterion=criterion, id=str(number))


def single(number: int, label: bool, criterion: str = "") -> LabelledResponse:
    return LabelledResponse(f"prompt {number}", "response", label, criterion=criterion, id=str(number))


def groups_of(examples):
    return {(" ".join(text_of(example.prompt).split()), example.criterion) for example in examples}


counts_per_stratum = st.lists(st.integers(1, 30), min_size=1, max_size=6)
fractions = st.lists(st.floats(0.05, 1), min_size=1, max_size=4)


@pytest.mark.slow
@QUICK
@given(strata=counts_per_stratum, weights=fractions, seed=st.integers(0, 99), rest=st.floats(0, 1))
def test_with_unique_prompts_sizes_are_exact_and_strata_balanced_within_one(strata, weights, seed, rest):
    labels = [(number, f"criterion {number % 3}", number % 2 == 0) for number in range(len(strata))]
    examples = [
        single(100 * number + index, label, criterion)
        for (number, criterion, label), count in zip(labels, strata, strict=True)
        for index in range(count)
    ]
    random.Random(seed).shuffle(examples)
    n, total = len(examples), sum(weights) + rest
    sizes = {f"part {index}": int(n * weight / total) for index, weight in enumerate(weights)}
    parts = split_preferences(examples, sizes, seed=seed)
    assert {name: len(part) for name, part in parts.items()} == sizes
    assert max(Counter(example for part in parts.values() for example in part).values(), default=1) == 1
    in_all = Counter((example.criterion, example.label) for example in examples)
    for name, part in parts.items():
        in_part = Counter((example.criterion, example.label) for example in part)
        for stratum, count in in_all.items():
            assert abs(in_part[stratum] - count * sizes[name] / n) < 1


@pytest.mark.slow
@QUICK
@given(n=st.integers(2, 40), share=st.floats(0.1, 0.9), seed=st.integers(0, 99))
def test_labelled_pairs_stay_together_and_parts_have_as_many_of_each_label(n, share, seed):
    examples = unpair([pair(number, f"criterion {number % 2}") for number in range(n)])
    size = 2 * max(1, int(n * share))
    parts = split_preferences(examples, {"train": size, "rest": 2 * n - size}, seed=seed)
    assert len(parts["train"]) == size
    for part in parts.values():
        assert sum(example.label for example in part) * 2 == len(part)
        by_criterion = Counter(example.criterion for example in part)
        for number in range(2):
            expected = len(part) * Counter(example.criterion for example in examples)[f"criterion {number}"] / (2 * n)
            assert abs(by_criterion[f"criterion {number}"] - expected) <= 2
    assert not groups_of(parts["train"]) & groups_of(parts["rest"])


@pytest.mark.slow
@QUICK
@given(
    prompts=st.lists(st.integers(0, 12), min_size=3, max_size=40),
    share=st.floats(0.2, 0.8),
    seed=st.integers(0, 99),
)
def test_no_prompt_is_in_two_parts_however_often_it_occurs(prompts, share, seed):
    # Forty prompts that occur once fill up what groups leave, so that every size is possible.
    examples = [pair(number, prompt=f"asked {prompt}") for number, prompt in enumerate([*prompts, *range(20, 60)])]
    wanted = int(share * len(examples))
    parts = split_preferences(examples, {"a": wanted, "b": len(examples) - wanted}, seed=seed)
    assert len(parts["a"]) == wanted
    assert not groups_of(parts["a"]) & groups_of(parts["b"])
    assert sorted(parts["a"] + parts["b"], key=lambda e: int(e.id)) == examples


@pytest.mark.slow
@QUICK
@given(lengths=st.lists(st.integers(2, 5), min_size=1, max_size=5), wanted=st.integers(0, 12), seed=st.integers(0, 9))
def test_a_size_is_refused_just_when_no_whole_groups_make_it_up(lengths, wanted, seed):
    examples = [pair(0, prompt=f"asked {number}") for number, length in enumerate(lengths) for _ in range(length)]
    wanted = min(wanted, len(examples))
    sums = {0}
    for length in lengths:
        sums |= {length + one for one in sums}
    if wanted in sums:
        assert len(split_preferences(examples, {"a": wanted}, seed=seed)["a"]) == wanted
    else:
        with pytest.raises(ValueError, match=f"no split has exactly a {wanted}"):
            split_preferences(examples, {"a": wanted}, seed=seed)


def test_strata_are_rounded_by_largest_remainder():
    examples = [pair(number, criterion) for number, criterion in enumerate("a" * 9 + "b" * 4 + "c" * 7)]
    for seed in range(8):  # the shares of four are 1.8, 0.8 and 1.4
        part = split_preferences(examples, {"part": 4}, seed=seed)["part"]
        assert Counter(example.criterion for example in part) == {"a": 2, "b": 1, "c": 1}


def test_a_prompt_is_the_same_with_other_spaces_or_as_a_message():
    questions = ["Name  a\nprime.", " Name a prime.", [{"role": "user", "content": "Name a prime."}]]
    examples = [PreferencePair(prompt, "7", "9") for prompt in questions]
    assert len(split_preferences(examples, {"a": 3}, seed=0)["a"]) == 3
    with pytest.raises(ValueError, match=r"no split has exactly a 1: the 3 examples form 1 groups .* \(1 of size 3\)"):
        split_preferences(examples, {"a": 1}, seed=0)


def test_the_same_prompt_under_two_criteria_is_two_questions():
    parts = split_preferences([pair(0, "short"), pair(0, "polite")], {"a": 1, "b": 1}, seed=0)
    assert len(groups_of(parts["a"]) | groups_of(parts["b"])) == 2


def test_fractions_are_rounded_by_largest_remainder():
    examples = [pair(number) for number in range(10)]
    parts = split_preferences(examples, {"a": 0.55, "b": 0.28, "c": 0.17}, seed=0)
    assert {name: len(part) for name, part in parts.items()} == {"a": 5, "b": 3, "c": 2}
    parts = split_preferences(examples, {"a": 0.52, "b": 0.1}, seed=0)
    assert {name: len(part) for name, part in parts.items()} == {"a": 5, "b": 1}


def test_fractions_come_as_near_as_undivided_prompts_allow_but_counts_are_kept_or_refused():
    examples = unpair([pair(number) for number in range(5)])
    parts = split_preferences(examples, {"a": 0.5, "b": 0.5}, seed=0)
    assert sorted(len(part) for part in parts.values()) == [4, 6]
    with pytest.raises(
        ValueError, match=r"no split has exactly a 5, b 5: the 10 examples form 5 groups .* \(5 of size 2\)"
    ):
        split_preferences(examples, {"a": 5, "b": 5}, seed=0)


def test_one_text_that_occurs_often_does_not_fill_a_part():
    often = [LabelledResponse("", "Watch this", True, id=f"often {n}") for n in range(10)]
    others = [LabelledResponse("", f"text {n}", n % 2 == 0, id=str(n)) for n in range(240)]
    for seed in range(10):  # the share of the ten is 0.8 examples
        part = split_preferences([*often, *others], {"part": 20}, seed=seed)["part"]
        assert len({example.response for example in part}) == 20
        assert Counter(example.label for example in part)[True] in (10, 11)  # the share of 130 of 250


def test_strata_give_way_where_only_that_makes_the_sizes_exact():
    twice = [PreferencePair("twice", f"better {n}", "worse", criterion="rare") for n in range(2)]
    parts = split_preferences([*twice, *(pair(n) for n in range(2))], {"a": 2, "b": 2}, seed=0)
    assert sorted(Counter(example.criterion for example in part)["rare"] for part in parts.values()) == [0, 2]


def test_the_seed_alone_decides_and_another_seed_decides_otherwise():
    examples = [pair(number) for number in range(30)]
    random.seed(4)
    first = split_preferences(examples, {"a": 10, "b": 10}, seed=1)
    random.seed(5)
    assert split_preferences(examples, {"b": 10, "a": 10}, seed=1) == first
    assert split_preferences(examples, {"a": 10, "b": 10}, seed=2) != first


@pytest.mark.slow
def test_every_example_is_as_likely_to_be_drawn_as_any_other():
    examples = [pair(number) for number in range(4)]
    drawn = Counter(split_preferences(examples, {"a": 1}, seed=seed)["a"][0].id for seed in range(200))
    assert all(30 <= drawn[str(number)] <= 70 for number in range(4))  # 50 expected, standard deviation 6


@pytest.mark.slow
def test_the_split_is_the_same_in_another_process():
    package = Path(sys.modules["arm_lens.preferences"].__file__).parent
    code = (
        "import sys, types\n"
        "sys.modules['arm_lens'] = types.ModuleType('arm_lens')\n"
        f"sys.modules['arm_lens'].__path__ = [{str(package.parent)!r}]\n"
        "from arm_lens.preferences import LabelledResponse, split_preferences\n"
        "made = [LabelledResponse(f'p{n % 9}', 'r', n % 2 == 0, criterion=f'c{n % 3}', id=str(n)) for n in range(60)]\n"
        "print([e.id for e in split_preferences(made, {'a': 0.4, 'b': 0.4}, seed=3)['a']])"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(printed) == 1


@pytest.mark.parametrize(
    ("stratify", "of"),
    [
        ("criterion", lambda example: example.criterion),
        ("label", lambda example: example.label),
        ("criterion and label", lambda example: (example.criterion, example.label)),
        (lambda example: int(example.id) % 4, lambda example: int(example.id) % 4),
    ],
)
def test_what_is_stratified_by_is_balanced(stratify, of):
    examples = [single(number, label=number % 5 == 0, criterion="ab"[number % 3 == 0]) for number in range(60)]
    part = split_preferences(examples, {"a": 20, "b": 40}, seed=0, stratify=stratify)["a"]
    for stratum, count in Counter(map(of, examples)).items():
        assert abs(Counter(map(of, part))[stratum] - count / 3) < 1


def test_without_strata_the_numbers_vary():
    examples = [single(number, label=number % 2 == 0) for number in range(40)]
    parts = [split_preferences(examples, {"a": 20}, seed=seed, stratify=None)["a"] for seed in range(10)]
    assert len({sum(example.label for example in part) for part in parts}) > 1


def test_parts_come_in_the_order_of_sizes_and_examples_in_the_order_they_came():
    parts = split_preferences([pair(number) for number in range(20)], {"z": 5, "a": 10}, seed=0)
    assert list(parts) == ["z", "a"]
    assert all([int(e.id) for e in part] == sorted(int(e.id) for e in part) for part in parts.values())


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"a": 3, "b": 2}, r"5 examples are requested \(.*\), but there are 4"),
        ({"a": 0.8, "b": 0.3}, "add up to 1.1, more than 1"),
        ({"a": 0.5, "b": 2}, "mixes counts and fractions"),
        ({"a": -1}, "size of part 'a' is -1"),
        ({"a": True}, "size of part 'a' is True"),
        ({"a": math.nan}, "size of part 'a' is nan"),
        ({"a": 0.01, "b": 0.9}, "part 'a' should have 0.01 of 4 examples, which is none"),
        ({}, "sizes names no part"),
    ],
)
def test_sizes_that_cannot_be_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        split_preferences([pair(number) for number in range(4)], sizes, seed=0)


def test_no_examples_can_only_be_split_into_none():
    assert split_preferences([], {"a": 0}, seed=0) == {"a": []}
    with pytest.raises(ValueError, match=r"1 examples are requested .* there are 0"):
        split_preferences([], {"a": 1}, seed=0)
    with pytest.raises(ValueError, match=r"part 'a' should have 0\.5 of the examples, and there are none"):
        split_preferences([], {"a": 0.5}, seed=0)
