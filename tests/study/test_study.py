"""A study of heads: its tables are those of the functions they come from, on the right half of the examples; what cannot be
studied is refused before anything is measured; what is finished is kept."""

from __future__ import annotations

import os
import shutil
from dataclasses import fields, replace

import pandas as pd
import pytest
import torch
import transformers
from study.study_support import CRITERIA, OPTIONS, fitted, held_out, kept_study, smallest_study

from arm_lens import ActivationRewardModel, HeadSet, JudgeTemplate, LabelledResponse, PreferencePair
from arm_lens.attribution import MEASURES, interactions, leave_one_out_effects, scores_of
from arm_lens.comparison import stability, transfer
from arm_lens.engine.reading import HeadMeans
from arm_lens.engine.steering import Injection
from arm_lens.judges.generative import GenerativeJudge
from arm_lens.judges.options import QuestionOptions
from arm_lens.reward.model import FitRecord
from arm_lens.storage import DamagedFileError, StoreBusyError, locked
from arm_lens.study import HeadStudy, in_halves, parts, study_heads
from arm_lens.study.parts import PartOptions, study_part
from arm_lens.study.run import _among_criteria

pytestmark = pytest.mark.slow

ODD = "a <b>/x_50%"


@pytest.fixture(scope="module")
def model(model_of):
    return model_of("llama")


@pytest.fixture(scope="module")
def rewards(model):
    return fitted(model)


@pytest.fixture(scope="module")
def examples():
    return held_out()


@pytest.fixture(scope="module")
def kept(model, tmp_path_factory):
    return kept_study(model, tmp_path_factory.getbasetemp())[1]


@pytest.fixture(scope="module")
def study(model, tmp_path_factory):
    return kept_study(model, tmp_path_factory.getbasetemp())[0]


@pytest.fixture(scope="module")
def halves(examples):
    return {name: in_halves(examples[name], criterion=name) for name in CRITERIA}


def singles(*labels_by_prompt):
    """Labelled responses, a string of + and - for each prompt."""
    return [
        LabelledResponse(f"prompt {prompt}", f"response {number}", sign == "+")
        for prompt, signs in enumerate(labels_by_prompt)
        for number, sign in enumerate(signs)
    ]


# Halves


def test_no_prompt_stands_in_both_halves_and_both_are_alike(examples):
    shared = [LabelledResponse("the same", f"{n}", n % 2 == 0, criterion=f"{n % 3}") for n in range(4)]
    for some in (*examples.values(), singles("++-", "--+", "+-", "+-", "+", "-"), [*examples[ODD], *shared]):
        first, second = in_halves(some, criterion="x")
        assert not {one.prompt for one in first} & {one.prompt for one in second}
        assert sorted(map(id, [*first, *second])) == sorted(map(id, some))
        assert abs(len(first) - len(second)) <= 2
        for half in (first, second):
            assert {one.label for one in half} == {True, False}


def test_prompts_that_are_too_few_for_two_halves_are_said_to_be(rewards, examples, tmp_path):
    for some in (singles("++--", "+"), singles("++++", "----"), singles("+", "-", "-", "-")):
        with pytest.raises(ValueError, match="examples of 'brave' are too few, or too many of one prompt"):
            in_halves(some, criterion="brave")
    pairs = [PreferencePair(f"{n}", "a", "b") for n in range(3)]
    assert list(map(len, in_halves(pairs, criterion="x"))) in ([1, 2], [2, 1])
    with pytest.raises(ValueError, match="too few"):  # one ranked question has one right verdict
        in_halves(pairs, criterion="x", layout="ranked")
    one_kind = [LabelledResponse(one.prompt, one.response, True) for one in examples["positive"]]
    with pytest.raises(ValueError, match="examples of 'positive' are too few"):
        study_heads(rewards, examples | {"positive": one_kind}, out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("prompt", ["", "the same"])
def test_halves_of_texts_without_prompts_or_with_one_for_all_share_no_text(prompt):
    texts = [LabelledResponse(prompt, f"text {n // 2}", n % 4 > 1, id=f"{n}") for n in range(24)]  # each of them twice
    first, second = in_halves(texts, criterion="x")
    assert len(first) == len(second) == 12
    assert not {one.response for one in first} & {one.response for one in second}


# Tables


def test_every_head_has_every_measure_of_every_criterion(study):
    counts = study.attributions.groupby(["criterion", "measure", "outcome"]).size()
    assert (counts == 12).all()
    assert list(study.attributions["criterion"].unique()) == list(CRITERIA)
    # a greedy search knows no probabilities
    assert set(study.attributions["measure"]) == set(MEASURES) - {"selection_probability"}
    # Integrated gradients have no accuracy; gates have an outcome of their own.
    assert len(counts) == 3 * (9 * 3 + 2 + 1)


def test_heads_are_attributed_on_the_first_half(study, rewards, halves):
    assert len(rewards[ODD].heads)  # or to leave one out would be to inject one
    direct = leave_one_out_effects(rewards[ODD].objective(halves[ODD][0]), rewards[ODD].heads).values["gap"]
    found = scores_of(study.attributions, "leave_one_out", "gap")[ODD].values
    assert float((found - direct).abs().max()) < 1e-5


def test_interactions_are_those_on_the_first_half(study, rewards, halves):
    both = 0
    for name, reward in rewards.items():
        rows = study.interactions[study.interactions["criterion"] == name].reset_index(drop=True)
        if len(reward.heads) > 1:
            both += 1
            direct = interactions(reward.objective(halves[name][0]), reward.heads, criterion=name).frame()
            pd.testing.assert_frame_equal(rows, direct, rtol=1e-4, atol=1e-6)
        else:
            assert rows.empty
    assert both


def test_interactions_are_sampled_as_well_as_was_asked_for(rewards, halves):
    many = rewards[ODD].with_heads(HeadSet.all(3, 4))
    first, second = halves[ODD]
    few = [next(one for one in first if one.label is label) for label in (True, False)]
    found = study_part(ODD, many, (few, second), PartOptions(standard_error=2.0, random_sets=1, seed=3))["interactions"]
    direct = interactions(many.objective(few), many.heads, standard_error=2.0, seed=3, criterion=ODD)
    assert (found["sampling_se"] > 0).any()
    pd.testing.assert_frame_equal(found, direct.frame(), rtol=1e-4, atol=1e-6)


def test_rankings_and_transfer_are_judged_on_the_second_half(study, rewards, halves):
    for name, (_, second) in halves.items():
        rows = study.curve[study.curve["criterion"] == name]
        assert set(rows["n"]) == {len(second)}
        objective = rewards[name].objective(second)
        alone = float((objective.margins(torch.zeros(1, 3, 4, dtype=torch.bool)) > 0).double().mean())
        assert set(rows.loc[rows["heads"] == 0, "accuracy"]) == {alone}
    direct = transfer(rewards, {name: second for name, (_, second) in halves.items()}, random_sets=2, seed=0)
    pd.testing.assert_frame_equal(study.transfer, direct)


def test_tables_hold_pairs_of_criteria_and_the_chosen_heads(study, rewards):
    assert len(study.overlap) == len(study.rank_correlation) == 3
    assert set(study.transfer["used_for"]) == set(CRITERIA) and set(study.depth["name"]) == set(CRITERIA)
    chosen = study.heads[study.heads["selected"]].groupby("criterion").size()
    assert {name: len(reward.heads) for name, reward in rewards.items()} == chosen.to_dict()
    assert study.stability.empty and study.trajectory.empty  # one seed; a search without trajectory


def test_a_given_head_is_studied_without_a_search(model):
    study = smallest_study(model)
    assert "selection_probability" not in set(study.attributions["measure"])
    assert study.overlap.empty and study.interactions.empty and study.cosines.empty


# On disk


def test_a_study_comes_back_from_disk(study, kept):
    again = HeadStudy.load(kept)
    for field in fields(HeadStudy):
        ours, theirs = getattr(study, field.name), getattr(again, field.name)
        assert ours.empty == theirs.empty
        if not ours.empty:
            pd.testing.assert_frame_equal(ours, theirs)


def test_a_study_that_was_not_saved_whole_is_none(study, kept, tmp_path):
    shutil.copytree(kept, tmp_path / "old", ignore=shutil.ignore_patterns("parts"))
    assert HeadStudy.is_in(tmp_path / "old")
    for folder in (tmp_path / "new", tmp_path / "old"):
        broken = replace(study, card_tokens=pd.DataFrame({"tokens": [object()]}))  # which no Parquet file can hold
        with pytest.raises(Exception, match="tokens"):
            broken.save(folder)
        assert not HeadStudy.is_in(folder)
        with pytest.raises(FileNotFoundError, match=r"study\.json is missing"):
            HeadStudy.load(folder)
    study.save(tmp_path / "new")
    (tmp_path / "new" / "overlap.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"overlap\.parquet is missing"):
        HeadStudy.load(tmp_path / "new")


def test_a_table_that_was_changed_or_comes_from_another_study_is_refused_and_named(study, tmp_path):
    study.save(tmp_path)
    path = tmp_path / "curve.parquet"
    content = path.read_bytes()
    other = study.curve.assign(accuracy=0.5).to_parquet(index=False)
    for damaged in (content[:100] + bytes([content[100] ^ 1]) + content[101:], content[:-1], other, b""):
        path.write_bytes(damaged)
        with pytest.raises(DamagedFileError, match=r"curve\.parquet was changed or damaged"):
            HeadStudy.load(tmp_path)
    path.write_bytes(content)
    assert HeadStudy.load(tmp_path).curve.equals(study.curve)
    for damaged in ("", "[]", "{}", '{"tables": 3}', "[" * 100_000):
        (tmp_path / "study.json").write_text(damaged)
        with pytest.raises(DamagedFileError, match=r"study\.json is damaged"):
            HeadStudy.load(tmp_path)


def test_what_is_finished_is_not_made_again_and_what_is_lost_or_changed_is(study, rewards, examples, kept, tmp_path):
    shutil.copytree(kept / "parts", tmp_path / "parts")

    def parts():
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").rglob("*.parquet")}

    before = parts()
    assert len(before) == 9
    lost = next(path for path in before if path.name.startswith("positive curve "))
    lost.unlink()
    again = study_heads(rewards, examples, out=tmp_path, **OPTIONS)
    assert {path for path, when in parts().items() if before[path] != when} == {lost}
    pd.testing.assert_frame_equal(again.curve, study.curve)
    pd.testing.assert_frame_equal(again.attributions, study.attributions)
    fewer = in_halves(examples[ODD][:10], criterion=ODD)
    study_part(ODD, rewards[ODD], fewer, PartOptions(**OPTIONS, seed=0), out=tmp_path / "parts")
    after = parts()
    assert len(after) == 12 and all(after[path] == when for path, when in before.items() if path != lost)


def test_parts_depend_on_everything_they_are_made_of(rewards, halves, tmp_path):
    """Of each of these, another part is made: nothing is taken from one of other heads, means, injection, examples..."""
    reward, own = rewards["positive"], halves["positive"]
    options = PartOptions(**OPTIONS, seed=0)
    other_judge = replace(reward, judge=replace_judge(reward.judge, criterion_text="Be kind."))
    variants = [
        ("positive", reward, own, options),
        ("other", reward, own, options),
        ("positive", reward.with_heads(HeadSet.of(3, 4, [(2, 1)])), own, options),
        ("positive", replace(reward, means=HeadMeans(reward.means.values + 1e-6, 1)), own, options),
        ("positive", replace(reward, injection=Injection(strength=0.5)), own, options),
        ("positive", other_judge, own, options),
        ("positive", reward, own[::-1], options),
        ("positive", reward, (own[0][::-1], own[1]), options),
        ("positive", reward, own, replace(options, seed=1)),
    ]
    digests = {parts._digest(*one) for one in variants}
    assert len(digests) == len(variants)
    assert parts._digest(*variants[0]) == parts._digest("positive", reward, own, replace(options, random_sets=9))


def replace_judge(judge, **changes):
    known = {"layout": judge.layout, "template": judge.template, "criterion_text": judge.criterion_text}
    return GenerativeJudge(judge.model, question=QuestionOptions(**(known | changes)))


def test_a_damaged_part_is_refused_and_a_second_writer_kept_out(rewards, examples, kept, tmp_path):
    shutil.copytree(kept / "parts", tmp_path / "parts")
    path = next((tmp_path / "parts").glob("positive interactions *"))
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"positive interactions .* delete it to have it made again"):
        study_heads(rewards, examples, out=tmp_path, **OPTIONS)
    with locked(tmp_path), pytest.raises(StoreBusyError, match=str(tmp_path)):
        study_heads(rewards, examples, out=tmp_path, **OPTIONS)


def test_another_standard_error_goes_on_from_what_was_sampled(study, rewards, halves, kept, tmp_path):
    shutil.copytree(kept / "parts", tmp_path / "parts")
    (sampled,) = (tmp_path / "parts").glob("positive shapley *.checkpoint")
    os.utime(sampled, ns=(0, 0))
    options = PartOptions(standard_error=0.5, random_sets=1, seed=0)
    found = study_part("positive", rewards["positive"], halves["positive"], options, out=tmp_path / "parts")
    # The tables are made anew; what was sampled is good enough for them, and nothing is sampled.
    assert sampled.stat().st_mtime_ns == 0 and len(list(sampled.parent.glob("positive curve *.parquet"))) == 2
    known = study.attributions[study.attributions["criterion"] == "positive"].reset_index(drop=True)
    pd.testing.assert_frame_equal(found["attributions"], known)


# Refusals


def refused(reason, rewards, examples, folder, **options):
    with pytest.raises(ValueError, match=reason):
        study_heads(rewards, examples, out=folder, **options)
    assert not folder.exists(), "refused only after something was measured"


@pytest.mark.parametrize("name", ["all", "random heads", "none"])
def test_a_criterion_by_a_name_that_tables_need_is_refused(name, rewards, examples, tmp_path):
    refused(f"called '{name}'", {name: rewards[ODD]}, {name: examples[ODD]}, tmp_path / "out")


def test_a_criterion_without_examples_is_named(rewards, examples, tmp_path):
    refused("study 'positive', not 0", rewards, examples | {"positive": []}, tmp_path / "out")
    refused("no reward models", {}, {}, tmp_path / "out")
    refused("one random set", rewards, examples, tmp_path / "out", random_sets=0)


def test_a_reward_model_that_cannot_be_studied_is_named(rewards, examples, tmp_path):
    reward = rewards["positive"]
    gates = torch.full((3, 4), 0.5)
    soft = replace(reward, selection=replace(reward.selection, gates=gates))
    refused("'positive' moves all heads by soft gates", rewards | {"positive": soft}, examples, tmp_path / "out")
    ranked = replace(
        reward,
        judge=GenerativeJudge(
            reward.judge.model,
            question=QuestionOptions(layout="ranked", template=JudgeTemplate(first=("yes",), second=("no",))),
        ),
    )
    refused(
        "'positive' compares two responses, and example 0", rewards | {"positive": ranked}, examples, tmp_path / "out"
    )


def test_reward_models_of_two_language_models_are_refused_whatever_they_are_called(model_of, fresh, examples, tmp_path):
    size = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 512, "bos_token_id": 1, "eos_token_id": 2}
    model = model_of("gpt2")
    config = transformers.GPT2Config(vocab_size=model.cfg.d_vocab, **size, initializer_range=0.3)
    other = fresh(config)  # as large, with other weights
    heads, means = HeadSet.of(3, 4, [(0, 0)]), HeadMeans(torch.zeros(3, 4, 8), 1)
    record = FitRecord(
        criterion="x", seed=0, demonstrations=1, readings=1, n_read=1, n_validation=0, reward="log_prob", search=None
    )
    two = {
        name: ActivationRewardModel(GenerativeJudge(one), heads, means, Injection(), None, record)
        for name, one in (("this", model), ("that", other))
    }
    some = dict.fromkeys(two, examples[ODD])
    refused("'this' and 'that' are of different language models", two, some, tmp_path / "out")


# Shown


def test_a_study_shows_its_size_and_the_first_heads_of_each_criterion(study):
    text, page = repr(study), study._repr_html_()
    assert "3 criteria, 11 measures" in text and f"heads {3 * 12}" in text
    assert "a &lt;b&gt;/x_50%" in page and "<b>" not in page
    for name, scores in scores_of(study.attributions).items():
        best = max(scores.values.flatten().tolist())
        layer, head = divmod(int(scores.values.argmax()), 4)
        (line,) = (line for line in text.splitlines() if line.startswith(name + " "))
        assert line.split()[len(name.split()) :][:2] == [f"L{layer}H{head}", f"{best:+.3f}"]


def test_of_several_seeds_on_one_sample_stability_counts_the_first(rewards):
    generator = torch.Generator().manual_seed(0)
    sets = {
        (name, number): HeadSet.from_mask(torch.rand(3, 4, generator=generator) < 0.4)
        for name in rewards
        for number in range(6)
    }
    heads = pd.concat(
        [
            one.frame().assign(criterion=name, seed=number, sample=number // 2, probability=0.5)
            for (name, number), one in sets.items()
        ]
    )
    first = {name: [sets[name, number] for number in (0, 2, 4)] for name in rewards}
    found = _among_criteria(rewards, heads)["stability"]
    pd.testing.assert_frame_equal(found, stability(first), check_dtype=False)
    one_sample = _among_criteria(rewards, heads.assign(sample=0))["stability"]
    assert one_sample["n_sets"].tolist() == [6] * 3
