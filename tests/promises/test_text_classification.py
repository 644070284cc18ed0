"""Texts with a label and no prompt, or one prompt for all, are a use like any other: clusters are by response."""

from __future__ import annotations

import json

import pytest

from arm_lens import ActivationRewardModel, HeadSet, JudgeTemplate, LabelledResponse, PreferencePair, ReadingOptions
from arm_lens.attribution import few_shot_objective
from arm_lens.benchmark import read_config, run_benchmark
from arm_lens.benchmark.config import BenchmarkConfig
from arm_lens.benchmark.data import plan
from arm_lens.benchmark.samples import at_most, split, untested
from arm_lens.judge_model import labelled_responses
from arm_lens.judges.questions import clusters_behind, questions_of
from arm_lens.preferences import PreferenceDataWarning, PreferenceFieldError
from arm_lens.preferences.overlap import known_among, text_digests

TEXTS = [f"text {number}" for number in range(40)]
PROMPTS = pytest.mark.parametrize("prompt", ["", "Is this polite?"])


def texts(prompt, words=TEXTS):
    return [LabelledResponse(prompt, word, number % 2 == 0, id=f"{word}!") for number, word in enumerate(words)]


@PROMPTS
def test_texts_are_divided_capped_and_kept_out_of_the_test_one_by_one(prompt):
    data = texts(prompt)
    pool, rest = split(data, 10, 5, "mine")
    assert len(pool) == 10 and len(rest) == 30
    assert len(at_most(rest, 7, subset=lambda _: "all")) == 7
    with pytest.warns(PreferenceDataWarning, match="3 of 10 examples"):
        others = untested(
            [*pool[:7], *(LabelledResponse(prompt, f" {one.response}\n", False) for one in rest[:3])], rest, "mine"
        )
    assert others == pool[:7]


@PROMPTS
def test_the_same_text_twice_is_one_cluster_and_pairs_are_one(prompt):
    assert len(set(clusters_behind(texts(prompt)))) == len(TEXTS)
    again = clusters_behind([*texts(prompt), LabelledResponse(prompt, "  text 3 ", True)])
    assert again[-1] == again[3] and len(set(again)) == len(TEXTS)
    pairs = [PreferencePair(prompt, word, word + "?") for word in TEXTS[:5]]
    assert [*map(len, (clusters_behind(pairs), clusters_behind(pairs, "ranked")))] == [10, 5]
    assert len(set(clusters_behind(pairs))) == 5


@PROMPTS
@pytest.mark.parametrize("separate", [False, True])
def test_a_benchmark_on_a_file_of_texts_has_a_cluster_for_each(prompt, separate, tmp_path):
    def file_of(name, words):
        rows = [{"prompt": prompt, "text": one.response, "label": one.label} for one in texts(prompt, words)]
        rows = rows if prompt else [{key: value for key, value in row.items() if key != "prompt"} for row in rows]
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    study = {
        "kind": "preferences",
        "name": "mine",
        "path": file_of("test.jsonl", TEXTS),
        "columns": {"response": "text"},
    }
    study |= {"examples": file_of("train.jsonl", [f"other {one}" for one in TEXTS])} if separate else {"pool": 10}
    values = {"judges": ["length"], "studies": [study], "n_examples": [8], "noise": [0.0, 0.5]}
    for task in plan(BenchmarkConfig.model_validate(values)):
        assert len(task.examples) == 8 and {one.label for one in task.examples} == {True, False}
        assert len({item.cluster for item in task.test.items}) == len(task.test.items) == (40 if separate else 30)
        assert not known_among([item.example for item in task.test.items], text_digests(task.examples))


def test_a_template_without_a_place_for_prompts_asks_about_texts_and_refuses_prompts():
    template = JudgeTemplate(scalar="Text: {response}\nPolite?", ranked="A: {response_a}\nB: {response_b}\nPoliter?")
    (question,) = questions_of([LabelledResponse("", "thanks", True)], template)
    assert question.text == "Text: thanks\nPolite?"
    assert template.ranked_question("", "x", "y") == "A: x\nB: y\nPoliter?"
    for ask in (lambda: template.question("Say it", "thanks"), lambda: template.ranked_question("Say it", "x", "y")):
        with pytest.raises(PreferenceFieldError, match=r"no place in the judge template; write \{prompt\}"):
            ask()
    for wrong in ({"scalar": "{prompt}"}, {"ranked": "{prompt} {response_a}"}):
        with pytest.raises(ValueError, match="lacks"):
            JudgeTemplate(**wrong)


@pytest.mark.slow
@pytest.mark.tl4
@PROMPTS
def test_a_benchmark_in_yaml_on_texts_runs_end_to_end_on_the_bundled_model(prompt, tmp_path):
    replies = {one.response: one.label for one in labelled_responses("polite", 120, split="test", seed=3)}
    rows = [{"text": text, "label": "polite" if label else "rude"} | ({"prompt": prompt} if prompt else {}) for text, label in
            replies.items()]  # fmt: skip
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "run.yaml").write_text(
        """
judges:
  - zero_shot
  - few_shot
  - length
  - {judge: arm_reinforce, selector: {kind: reinforce, steps: 8, masks: 4}}
n_examples: [12]
demonstrations: 2
readings: 8
test_items: 30
studies:
  - {kind: preferences, name: politeness, path: texts.jsonl, pool: 40, columns: {response: text},
     labels: {polite: true, rude: false}}
""",
        encoding="utf-8",
    )
    results = run_benchmark(read_config(tmp_path / "run.yaml"), tmp_path / "out", progress=False)
    summary = results.tables.summary.set_index("judge")
    assert (summary["n"] == 30).all() and (summary["n_clusters"] == 30).all()
    assert summary["accuracy"].between(0, 1).all() and (summary["ci_high"] > summary["ci_low"]).all()


@pytest.mark.slow
@pytest.mark.tl4
@PROMPTS
def test_attribution_counts_texts_one_by_one_and_shows_no_text_its_own_label(judge, prompt):
    replies = labelled_responses("polite", 16, split="train", seed=2)
    unique = list({one.response: LabelledResponse(prompt, one.response, one.label) for one in replies}.values())[:8]
    reward = ActivationRewardModel.fit(
        judge,
        unique,
        criterion="polite",
        selector=HeadSet.none(6, 8),
        reading=ReadingOptions(readings=2, demonstrations=1),
    )
    others = [LabelledResponse(prompt, f"{one.response} {one.response}", one.label) for one in unique]
    assert len(set(reward.objective(others).clusters)) == 8
    objective = few_shot_objective(reward, unique, unique, demonstrations=7)  # all but its own
    assert len(set(objective.clusters)) == 8
    for sequence in objective.replay.sequences:
        asked = [part.split("verdict:")[0] for part in judge.tokenizer.decode(sequence).split("request:")[1:]]
        assert len(set(asked)) == len(asked) == 8
    with pytest.raises(ValueError, match="8 demonstrations are wanted"):
        few_shot_objective(reward, unique, unique, demonstrations=8)
