"""What a benchmark is told: mistakes are named with their field, and paths do not depend on where it is read from."""

from __future__ import annotations

import os

import pytest
import yaml

from arm_lens.benchmark import DEMO, DEMONSTRATION, REAL, REAL_FULL, BenchmarkConfigError, read_config
from arm_lens.benchmark.config import BenchmarkConfig
from arm_lens.benchmark.judging import check_judges
from arm_lens.evaluation.hacking import MAPPINGS
from arm_lens.judge_model import CRITERIA
from arm_lens.preferences.biases import BIASES
from arm_lens.registry import JUDGES

GOOD = {"judges": ["length"], "studies": [{"kind": "world"}]}


@pytest.fixture
def read(tmp_path):
    """read(values): the config that a file with these values gives."""

    def from_file(values):
        path = tmp_path / "run.yaml"
        path.write_text(values if isinstance(values, str) else yaml.safe_dump(values), encoding="utf-8")
        return read_config(path)

    return from_file


def study(**fields):
    return {**GOOD, "studies": [{"kind": "world", **fields}]}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({**GOOD, "batchsize": 4}, ["batchsize"]),
        (study(crteria=["polite"]), ["studies.0", "crteria"]),
        (study(criteria=["polite", "nice"]), ["studies.0", "criteria", "criterion 'nice'", "polite"]),
        (study(kind="hacking", biases=["colour"]), ["studies.0", "biases", "bias 'colour'", *BIASES]),
        (study(kind="hacking", mappings=["odd"]), ["studies.0", "mappings", "mapping 'odd'", *MAPPINGS]),
        (study(kind="wrld"), ["studies.0", "wrld", "preferences"]),
        (study(kind="preferences", name="mine"), ["studies.0", "path"]),
        (study(kind="hacking", pool=9), ["studies.0", "'pool' is about data at a path"]),
        (study(kind="hacking", split="test"), ["studies.0", "'split' is about data at a path"]),
        (
            study(kind="preferences", name="a", path="x.csv", examples_split="train"),
            ["examples_split is a split of examples"],
        ),
        (study(kind="preferences", name="a", path="x.csv", examples="y.csv", pool=9), ["leave pool or examples out"]),
        ({**GOOD, "keep_reward_models": True}, ["keep_reward_models", "no judge is called 'arm_reinforce'"]),
        (study(n_examples=[0]), ["studies.0", "n_examples"]),
        (study(n_examples=[]), ["studies.0", "n_examples"]),
        (study(criteria=[]), ["studies.0", "criteria"]),
        (study(noise=[0.6]), ["studies.0", "noise"]),
        ({**GOOD, "judges": []}, ["judges"]),
        ({**GOOD, "studies": []}, ["studies"]),
        ({"studies": GOOD["studies"]}, ["judges", "required"]),
        ({**GOOD, "judges": ["length", "length"]}, ["two judges of the run", "'length'"]),
        (study(judges=["sav", "sav"]), ["two judges of world", "'sav'"]),
        ({**GOOD, "studies": [{"kind": "world"}] * 2}, ["two studies", "'world'"]),
        ({**GOOD, "studies": [{"kind": "world"}, {"kind": "hacking", "name": "world verdicts"}]}, ["'world verdicts'"]),
        (
            study(judges=[{"judge": "sav", "name": "length"}]) | {"judges": ["length"]},
            ["'length' is length in one study, sav in another"],
        ),
        ({**GOOD, "lead": "sav"}, ["lead is 'sav'", "length"]),
        (study(unit="single"), ["studies.0", "unit", "'pair' or 'response'"]),
        (study(seeds="samples"), ["studies.0", "seeds", "'sample'"]),
        ({**GOOD, "workers": "all"}, ["workers", "'cores'"]),
        ({**GOOD, "workers": 0}, ["workers", "greater than or equal to 1"]),
        ("judges: [length", ["run.yaml is not YAML"]),
        ("just words", ["run.yaml"]),
    ],
)
def test_what_is_wrong_is_named(read, values, named):
    with pytest.raises(BenchmarkConfigError) as error:
        read(values)
    for words in named:
        assert words in str(error.value)
    assert "Value error" not in str(error.value)


def test_all_mistakes_are_told_at_once(read):
    with pytest.raises(BenchmarkConfigError, match="2 fields are wrong") as error:
        read({**study(test_item=3), "demonstrations": -1})
    assert "test_item" in str(error.value) and "demonstrations" in str(error.value)


@pytest.mark.parametrize(
    ("judges", "message"),
    [
        (["lenght"], "no judge 'lenght'; there are .*length"),
        ([{"judge": "length", "longer": True}], "'length' has no option 'longer'; it has shorter"),
        ([{"judge": "length", "options": {"shorter": True}}], "'length' has no option 'options'; it has shorter"),
        ([{"judge": "constant", "value": 1}], "'constant' has no option 'value'; it has none"),
        (["endpoint"], "'endpoint' needs the option 'model'"),
        (["likelihood_ratio"], "'likelihood_ratio' needs the option 'reference'"),
    ],
)
def test_judges_and_options_are_checked_before_anything_runs(judges, message):
    with pytest.raises(BenchmarkConfigError, match=message):
        check_judges(BenchmarkConfig.model_validate({**GOOD, "judges": judges}))
    in_a_study = {**GOOD, "studies": [{"kind": "world"}, {"kind": "hacking", "judges": judges}]}
    with pytest.raises(BenchmarkConfigError, match=message):
        check_judges(BenchmarkConfig.model_validate(in_a_study))


def test_an_option_is_checked_though_another_study_has_the_judge_without_it():
    studies = [{"kind": "world"}, {"kind": "hacking", "judges": [{"judge": "length", "longer": True}]}]
    studies.append({"kind": "world", "name": "last", "judges": ["length"]})
    with pytest.raises(BenchmarkConfigError, match="no option 'longer'"):
        check_judges(BenchmarkConfig.model_validate({**GOOD, "studies": studies}))


def test_paths_are_taken_from_the_files_folder(read, tmp_path):
    (tmp_path / "reference").mkdir()
    (tmp_path / "judge").mkdir()
    config = read(
        {
            "model": "judge",
            "judges": [
                {"judge": "likelihood_ratio", "reference": "reference"},
                {"judge": "likelihood_ratio", "name": "hub", "reference": "owner/name"},
            ],
            "studies": [
                {"kind": "preferences", "name": "mine", "path": "data/mine.jsonl", "examples": "../more.csv"},
                {"kind": "preferences", "name": "theirs", "path": "hf://owner/name"},
                {"kind": "hacking", "path": str(tmp_path / "absolute.jsonl")},
            ],
        }
    )
    mine, theirs, absolute = config.studies
    assert mine.path == str(tmp_path.resolve() / "data" / "mine.jsonl")
    assert mine.examples == str(tmp_path.resolve().parent / "more.csv")
    assert theirs.path == "hf://owner/name" and absolute.path == str(tmp_path.resolve() / "absolute.jsonl")
    assert config.model == str(tmp_path.resolve() / "judge")
    assert [one.options["reference"] for one in config.judges] == [str(tmp_path.resolve() / "reference"), "owner/name"]


def test_a_study_takes_from_the_run_what_it_does_not_say():
    values = {
        "judges": ["length"],
        "n_examples": [3],
        "samples": 2,
        "studies": [{"kind": "world", "samples": 5, "noise": [0.1]}],
    }
    config = BenchmarkConfig.model_validate(values)
    settings = config.settings(config.studies[0])
    assert (settings.n_examples, settings.samples, settings.noise, settings.seeds) == ((3,), 5, (0.1,), 1)
    assert [one.label for one in settings.judges] == ["length"]


def test_the_demo_is_valid_and_covers_judges_criteria_biases_and_mappings():
    config = read_config(DEMO)
    check_judges(config)
    assert config.lead == "arm_reinforce"
    controls = {"zero_shot", "few_shot", "arm_random_heads", "sav", "probe"}
    judges = {one.name: {choice.judge for choice in config.settings(one).judges} for one in config.studies}
    assert all({config.lead, *controls} <= questions <= set(JUDGES) for questions in judges.values())
    compared = [one for one in config.studies if len(judges[one.name]) >= 10]
    assert {name for one in compared for name in getattr(one, "criteria", ())} == set(CRITERIA)
    hacking = [one for one in compared if one.kind == "hacking"]
    assert {name for one in hacking for name in one.biases} == set(BIASES)
    assert {name for one in hacking for name in one.mappings} == set(MAPPINGS)
    sizes = {size for one in config.studies for size in config.settings(one).n_examples}
    noise = {share for one in config.studies for share in config.settings(one).noise}
    assert {3, 5, 10, 20, 40, 80} <= sizes and {0.0, 0.1, 0.2, 0.3, 0.4} <= noise


def test_the_demonstration_is_the_one_that_is_promised():
    config = read_config(DEMONSTRATION)
    check_judges(config)
    (world,) = config.studies
    settings = config.settings(world)
    assert (world.unit, set(world.criteria), settings.test_items) == ("response", set(CRITERIA), 400)
    assert (settings.n_examples, settings.samples, settings.seeds, settings.noise) == ((40,), 3, "sample", (0.0,))
    judges = {choice.label: choice.seeds for choice in settings.judges}
    assert judges == dict.fromkeys(["zero_shot", "few_shot", "arm_all_heads", "arm_reinforce"]) | {
        "arm_random_heads": 20
    }
    assert (config.batch_size, config.demonstrations, config.readings, config.lead) == (5, 8, 64, "arm_reinforce")
    assert config.keep_reward_models and config.threads == 1 and 1 <= config.n_workers == config_of_cores()


def config_of_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def test_the_benchmarks_on_a_real_model_are_valid_name_their_data_and_the_full_one_has_all_of_the_other():
    short, full = read_config(REAL), read_config(REAL_FULL)
    for config in (short, full):
        check_judges(config)
        assert all(study.source for study in config.studies)
    assert {study.name for study in short.studies} <= {study.name for study in full.studies}
    assert {choice.label for choice in short.judges} <= {choice.label for choice in full.judges}
    assert {"sav", "probe", "few_shot_all", "zero_shot_threshold"} <= {choice.judge for choice in full.judges}
