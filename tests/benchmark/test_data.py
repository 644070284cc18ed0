"""From a configuration to tasks: tests that do not move, samples that are nested, nothing tested that was shown."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest

from arm_lens.benchmark.config import BenchmarkConfig
from arm_lens.benchmark.data import TestItem, TestSet, format_of, plan
from arm_lens.benchmark.samples import drawn, flipped
from arm_lens.judge_model import preference_pairs
from arm_lens.preferences import LabelledResponse, PreferenceDataWarning, PreferencePair, unpair


def planned(study, **run):
    return plan(BenchmarkConfig.model_validate({"judges": ["length"], "n_examples": [4], **run, "studies": [study]}))


@pytest.fixture
def file_of(tmp_path):
    """file_of(rows): a JSONL file."""

    def write(rows, name="data.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


def pair_rows(count=60, prompts=20, **more):
    """Pairs; several of them about one prompt."""
    return [
        {"prompt": f"Question {n % prompts}?", "chosen": f"Right {n}.", "rejected": f"Wrong {n}.", **more}
        for n in range(count)
    ]


def single_rows(count=60):
    return [{"prompt": f"Question {n}?", "response": f"Answer {n}.", "label": n < count // 2} for n in range(count)]


def prompts_of(examples):
    return {" ".join(str(one.prompt).split()) for one in examples}


# Labels and samples


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.25, 0.3, 0.5])
@pytest.mark.parametrize("kind", ["pairs", "responses"])
def test_exactly_the_share_of_labels_is_flipped(noise, kind):
    examples = preference_pairs("polite", 13, split="train", seed=0)
    if kind == "responses":
        examples = unpair(examples)
    found = flipped(examples, noise, seed=3)
    changed = [(one, other) for one, other in zip(examples, found, strict=True) if one != other]
    assert len(changed) == round(noise * len(examples))
    for one, other in changed:
        if kind == "pairs":
            assert (other.chosen, other.rejected) == (one.rejected, one.chosen)
        else:
            assert other == replace_label(one)
        assert (other.prompt, other.id, other.criterion) == (one.prompt, one.id, one.criterion)


def replace_label(one):
    return LabelledResponse(one.prompt, one.response, not one.label, criterion=one.criterion, id=one.id)


def test_flips_are_nested_and_differ_between_samples():
    examples = preference_pairs("polite", 400, split="train", seed=0)

    def which(noise, seed):
        return {n for n, one in enumerate(flipped(examples, noise, seed=seed)) if one != examples[n]}

    assert which(0.1, 0) < which(0.2, 0) < which(0.4, 0)
    assert which(0.2, 0) != which(0.2, 1)


@pytest.mark.parametrize("count", [3, 5, 10])
@pytest.mark.parametrize("noise", [0.1, 0.2, 0.3, 0.4])
def test_of_single_responses_flips_leave_some_of_both_labels(count, noise):
    for seed in range(50):
        pool = [LabelledResponse(f"p{n}", "r", n % 3 == 0, id=str(n)) for n in range(30)]
        found = flipped(drawn(pool, count, seed, "s"), noise, seed=seed)
        assert {one.label for one in found} == {True, False}


def undone(task, others):
    """The examples of a task as they are without noise."""
    original = {one.id: one for one in others}
    return [original[one.id] for one in task.examples]


@pytest.mark.slow
@pytest.mark.parametrize("source", ["world", "hacking", "file", "hacking file"])
def test_samples_are_nested_over_sizes_and_the_same_over_noise(source, file_of):
    study = {
        "world": lambda: {"kind": "world", "criteria": ["polite"]},
        "hacking": lambda: {"kind": "hacking", "biases": ["length"], "mappings": ["standard"]},
        "file": lambda: {"kind": "preferences", "name": "mine", "path": file_of(pair_rows()), "pool": 30},
        "hacking file": lambda: {
            "kind": "hacking", "path": file_of(pair_rows(prompts=60)), "pool": 30, "biases": ["format"],
            "mappings": ["flipped"],
        },
    }[source]()  # fmt: skip
    tasks = planned(study, n_examples=[3, 8, 20], noise=[0.0, 0.3], samples=2, test_items=6)
    at = {(one.n_examples, one.noise, one.sample): one for one in tasks}
    assert len(at) == 12
    for sample in (0, 1):
        clean = [at[n, 0.0, sample].examples for n in (3, 8, 20)]
        assert clean[2][:3] == clean[0] and clean[2][:8] == clean[1]
        assert len({one.id for one in clean[2]}) == 20
        for n in (3, 8, 20):
            assert undone(at[n, 0.3, sample], clean[2]) == list(clean[2][:n])
    assert at[20, 0.0, 0].examples != at[20, 0.0, 1].examples
    assert len({one.test.digest for one in tasks}) == 1
    assert len({one.digest for one in tasks}) == 12


def test_single_responses_are_drawn_with_both_labels_in_turn():
    pool = [LabelledResponse(f"P{n}", f"R{n}", n % 10 == 0) for n in range(40)]
    firsts = set()
    for sample in range(8):
        found = drawn(pool, 40, sample, "mine")
        assert Counter(one.label for one in found[:8]) == {True: 4, False: 4}
        assert {one.label for one in found[:2]} == {True, False}
        assert sorted(found, key=str) == sorted(pool, key=str)
        firsts.add(found[0].label)
    assert firsts == {True, False}


# What is tested


def test_the_world_is_tested_on_other_requests_than_it_is_shown():
    (task,) = planned({"kind": "world", "criteria": ["polite"]}, n_examples=[80], test_items=100)
    assert len(task.test.items) == 100 and not prompts_of(task.examples) & prompts_of(
        one.example for one in task.test.items
    )


@pytest.mark.parametrize("rows", [pair_rows(), single_rows()], ids=["pairs", "responses"])
def test_no_prompt_is_both_shown_and_tested(file_of, rows):
    tasks = planned(
        {"kind": "preferences", "name": "mine", "path": file_of(rows), "pool": 20}, samples=4, n_examples=[15]
    )
    for task in tasks:
        assert not prompts_of(task.examples) & prompts_of(one.example for one in task.test.items)
        assert len(task.examples) == 15 and 30 <= len(task.test.items) <= 45


def test_a_prompt_with_two_criteria_is_on_one_side(file_of):
    rows = [{**row, "criterion": f"c{n // 20}"} for n, row in enumerate(pair_rows(prompts=20))]
    path = file_of(rows)
    (task,) = planned({"kind": "preferences", "name": "mine", "path": path, "pool": 30}, n_examples=[30])
    assert not prompts_of(task.examples) & prompts_of(one.example for one in task.test.items)
    assert {one.criterion for one in task.examples} == {"c0", "c1", "c2"}


def test_examples_from_a_file_of_their_own_leave_out_tested_prompts(file_of):
    test, examples = file_of(pair_rows(20)), file_of(pair_rows(40, prompts=40), "examples.jsonl")
    study = {"kind": "preferences", "name": "mine", "path": test, "examples": examples}
    with pytest.warns(
        PreferenceDataWarning, match="study 'mine': 20 of 40 examples are about a prompt or text that is tested"
    ):
        (task,) = planned(study, n_examples=[20])
    assert len(task.test.items) == 20
    assert not prompts_of(task.examples) & prompts_of(one.example for one in task.test.items)
    with pytest.warns(PreferenceDataWarning), pytest.raises(ValueError, match=r"study 'mine' wants 21 .* there are 20"):
        planned(study, n_examples=[21])


def test_ids_are_unique_and_clusters_are_prompts(file_of):
    rows = [*pair_rows(30, prompts=10), {"prompt": " Question  3? ", "chosen": "a", "rejected": "b"}]
    (task,) = planned({"kind": "preferences", "name": "mine", "path": file_of(rows), "pool": 5})
    items = task.test.items
    assert len({one.id for one in items}) == len(items)
    by_cluster = {}
    for one in items:
        by_cluster.setdefault(one.cluster, set()).update(prompts_of([one.example]))
    assert all(len(prompts) == 1 for prompts in by_cluster.values())
    assert len(by_cluster) == len(prompts_of(one.example for one in items)) < len(items)


def test_a_file_with_subsets_is_tested_subset_by_subset(file_of):
    rows = [{**row, "subset": ("chat", "news")[n % 3 == 0]} for n, row in enumerate(pair_rows(90, prompts=90))]
    study = {"kind": "preferences", "name": "mine", "path": file_of(rows), "pool": 10}
    (task,) = planned(study)
    subsets = Counter(one.subset for one in task.test.items)
    assert set(subsets) == {"chat", "news"} and subsets.total() == 80
    assert all(one.subset == one.example.metadata["subset"] for one in task.test.items)
    (capped,) = planned({**study, "test_items": 7})
    assert Counter(one.subset for one in capped.test.items) == {"chat": 7, "news": 7}
    assert [one for one in task.test.items if one in capped.test.items] == list(capped.test.items)


def test_a_capped_test_of_a_sorted_file_has_both_labels(file_of):
    study = {"kind": "preferences", "name": "mine", "path": file_of(single_rows(200)), "pool": 20, "test_items": 40}
    (task,) = planned(study)
    labels = Counter(one.example.label for one in task.test.items)
    assert labels.total() == 40 and min(labels.values()) >= 10


def test_a_capped_test_keeps_all_pairs_of_a_prompt(file_of):
    study = {"kind": "preferences", "name": "mine", "path": file_of(pair_rows(60, prompts=20)), "pool": 9}
    (whole,) = planned(study)
    (capped,) = planned({**study, "test_items": 10})
    sizes = Counter(one.cluster for one in capped.test.items)
    assert len(capped.test.items) == 9 and all(size == 3 for size in sizes.values())
    assert set(capped.test.items) <= set(whole.test.items)
    with pytest.raises(ValueError, match="test_items is 2"):
        planned({**study, "test_items": 2})


def test_reward_hacking_from_a_file_tests_every_cell_of_other_prompts(file_of):
    path = file_of(pair_rows(60, prompts=30, subset="s"))
    study = {"kind": "hacking", "path": path, "pool": 20, "biases": ["length"], "mappings": ["standard", "flipped"]}
    tasks = planned(study, test_items=10)
    assert [one.subset for one in tasks] == ["length | standard", "length | flipped"]
    for task in tasks:
        cells = Counter(one.subset for one in task.test.items)
        assert len(cells) == 8 and set(cells.values()) == {10}
        assert all(one.startswith(task.subset + " | ") for one in cells)
        assert not prompts_of(task.examples) & prompts_of(one.example for one in task.test.items)
        for one in task.test.items:
            assert len(prompts_of(other.example for other in task.test.items if other.cluster == one.cluster)) == 1
        assert len({one.cluster for one in task.test.items}) == len(prompts_of(one.example for one in task.test.items))
    longer = [len(one.chosen) > len(one.rejected) for one in (tasks[0].examples[0], tasks[1].examples[0])]
    assert longer == [False, True]
    assert tasks[0].test.texts == tasks[1].test.texts and tasks[0].test.texts_digest == tasks[1].test.texts_digest
    assert tasks[0].test.digest != tasks[1].test.digest


def test_reward_hacking_refuses_single_responses(file_of):
    with pytest.raises(ValueError, match=r"study 'hacking': .*data.jsonl:1 is a single response"):
        planned({"kind": "hacking", "path": file_of(single_rows()), "pool": 5})


@pytest.mark.parametrize("kind", ["preferences", "hacking"])
@pytest.mark.parametrize(("pool", "wanted"), [(10, 11), (60, 3), (61, 3)])
def test_too_few_examples_are_told_with_the_study(file_of, kind, pool, wanted):
    study = {"kind": kind, "name": "mine", "path": file_of(pair_rows(60)), "pool": pool, "n_examples": [wanted]}
    with pytest.raises(ValueError, match=r"study 'mine': .* of 60 preferences"):
        planned(study)


def test_a_file_that_has_changed_is_read_again(file_of):
    study = {"kind": "preferences", "name": "mine", "path": file_of(pair_rows(30, prompts=30)), "pool": 5}
    (before,) = planned(study)
    file_of(pair_rows(40, prompts=40))
    (after,) = planned(study)
    assert len(before.test.items) == 25 and len(after.test.items) == 35


def test_a_published_format_is_known_by_its_fields(file_of):
    rows = pair_rows(20, prompts=20, subset="hep-java", chosen_model="m", rejected_model="w")
    path = file_of([{**row, "id": n} for n, row in enumerate(rows)])
    values = {
        "judges": ["length"],
        "studies": [{"kind": "preferences", "name": "mine", "path": path}, {"kind": "world"}],
    }
    named, world = BenchmarkConfig.model_validate(values).studies
    assert format_of(named) == "rewardbench" and format_of(world) == ""


# Digests


def test_a_digest_changes_with_any_text_label_id_or_name():
    pair = PreferencePair("P", "C", "R", id="1")
    single = LabelledResponse("P", "S", True, id="2")

    def digest(*, pair=pair, single=single, benchmark="b", subset="s", cluster="c"):
        return TestSet(benchmark, (TestItem(subset, pair.id, cluster, pair), TestItem("t", "2", "c", single))).digest

    others = [
        digest(pair=PreferencePair("Q", "C", "R", id="1")),
        digest(pair=PreferencePair("P", "D", "R", id="1")),
        digest(pair=PreferencePair("P", "C", "T", id="1")),
        digest(pair=PreferencePair("P", "R", "C", id="1")),
        digest(pair=PreferencePair("P", "C", "R", id="9")),
        digest(pair=PreferencePair([{"role": "user", "content": "P"}], "C", "R", id="1")),
        digest(single=LabelledResponse("P", "S", False, id="2")),
        digest(single=LabelledResponse("P", "T", True, id="2")),
        digest(benchmark="a"),
        digest(subset="r"),
        digest(cluster="d"),
    ]
    assert len({digest(), *others}) == 12
    assert digest() == digest()


def test_a_tasks_digest_changes_with_examples_wording_and_test():
    (task,) = planned({"kind": "world", "criteria": ["polite"]}, test_items=3)
    one = task.examples[0]
    others = [
        replace(task, examples=(PreferencePair(one.prompt, one.chosen + "!", one.rejected), *task.examples[1:])),
        replace(task, examples=task.examples[::-1]),
        replace(task, criterion_text="be kind"),
        replace(task, sample=1),
        replace(task, noise=0.1),
        replace(task, test=TestSet(task.test.benchmark, task.test.items[1:])),
        task.without_examples(),
    ]
    assert len({task.digest, *(other.digest for other in others)}) == 8


def test_every_text_is_kept_once_and_found_again():
    pairs = [
        PreferencePair("P", "A", "B", id="1"),
        PreferencePair("P", "A", "C", id="2"),
        PreferencePair("PA", "B", "C", id="3"),
    ]
    test = TestSet("b", tuple(TestItem("s", one.id, one.id, one) for one in pairs))
    assert test.texts == [("P", "A"), ("P", "B"), ("P", "C"), ("PA", "B"), ("PA", "C")]
    assert [test.number(*text) for text in test.texts] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("unit", ["pair", "response"])
def test_pictures_are_tested_with_other_sentences_than_they_are_shown_in(unit):
    from arm_lens.judge_model import PICTURE_ATTRIBUTES
    from arm_lens.judge_model.pictures import FRAMES
    from arm_lens.preferences.marks import MARK

    tasks = planned({"kind": "pictures", "unit": unit}, samples=2, test_items=12)
    assert [(task.subset, task.sample) for task in tasks] == [(c, n) for c in PICTURE_ATTRIBUTES for n in (0, 1)]
    for task in tasks:
        shown, tested = unpair(task.examples), unpair(item.example for item in task.test.items)
        for some, split in ((shown, "train"), (tested, "test")):
            requests = {MARK.sub("", str(one.prompt)).strip() for one in some}
            assert requests <= set(FRAMES[split]["request"]) and all(MARK.match(str(one.prompt)) for one in some)
        assert {one.criterion for one in shown} == {task.subset} and len(task.test.items) == 12
        assert isinstance(task.examples[0], PreferencePair if unit == "pair" else LabelledResponse)
    assert len({task.digest for task in tasks}) == 8
