"""A grid is a benchmark for each model, whose judges are all combinations; what is wrong in it is named with its line."""

from __future__ import annotations

import itertools

import pytest
from sweep.sweep_support import grid_of

from arm_lens.benchmark import BenchmarkConfigError
from arm_lens.benchmark.config import BenchmarkConfig
from arm_lens.benchmark.parts import parts_of
from arm_lens.sweep import read_grid


def test_a_grid_has_all_combinations_and_each_is_the_judge_that_it_says():
    grid = grid_of(
        "polite",
        models=["bundled", {"model": "some/model", "dtype": "bfloat16"}],
        selectors=[{"kind": "reinforce", "steps": 3}, {"kind": "greedy", "name": "two", "max_heads": 2}, "all_heads"],
        layers=["all", "0-1", [2]],
        options={"reward": ["two_way", "margin"]},
        judges=["zero_shot"],
    )
    places = {label: tuple(place.values()) for label, place, _ in grid.combinations}
    searched = itertools.product(("reinforce", "two"), ("all", "0-1", "2"), ("two_way", "margin"))
    assert set(places.values()) == {*searched, ("all_heads", "all", "two_way"), ("all_heads", "all", "margin")}
    assert len(places) == 14  # labels differ
    (first, own), (second, other) = grid.configs
    assert (first, second) == ("arm_lens judge model", "some/model")
    assert own.model is None and other.model == "some/model" and other.dtype == "bfloat16"
    assert [one.label for one in own.judges] == [*places, "zero_shot"]
    for choice in own.judges[:-1]:
        selector, layers, reward = places[choice.label]
        parsed = choice.parsed
        assert parsed.reward == reward and parsed.selector.kind == {"two": "greedy"}.get(selector, selector)
        assert getattr(parsed.selector, "layers", None) == {"all": None, "0-1": (0, 1), "2": (2,)}[layers]
        assert parsed.selector.kind != "greedy" or parsed.selector.max_heads == 2


def test_what_a_grid_leaves_out_is_the_benchmarks_default():
    ((_, config),) = grid_of("polite").configs
    values = config.model_dump(exclude={"title", "judges", "lead", "studies"})
    written = {name: values[name] for name in ("demonstrations", "readings", "test_items", "n_examples", "retries")}
    plain = BenchmarkConfig.model_validate({"judges": ["length"], "studies": [{"kind": "world"}], **written})
    assert values == plain.model_dump(exclude={"title", "judges", "lead", "studies"})


def test_a_larger_grid_has_the_parts_of_a_smaller_one():
    def digests(**values):
        return {
            part.digest for _, config in grid_of("polite", **values).configs for part in parts_of(config, "weights")
        }

    small = digests()
    larger = digests(selectors=[{"kind": "reinforce", "steps": 3}, "top_effect", "greedy"], layers=["all", [0]])
    assert len(small) == 2 and small < larger and len(larger) == 6


def test_a_grid_is_read_from_its_file(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(
        "selectors: [greedy]\nlayers: [0-2]\nstudies: [{kind: world, criteria: [safe]}]\n", encoding="utf-8"
    )
    grid = read_grid(path)
    assert [label for label, _, _ in grid.combinations] == ["greedy, layers 0-2"] and grid.layers == ((0, 1, 2),)


WRONG = {
    "models: [a, b]\nmodel: c\n": ["line 3", "a sweep has no field 'model'; list models: [...]"],
    "selectors: [reinforce, graedy]\n": ["line 2", "graedy"],
    "selectors: [{kind: reinforce, step: 3}]\n": ["line 2", "step"],
    "selectors: [greedy, {kind: greedy, max_heads: 2}]\n": ["two selectors are called 'greedy'"],
    "layers: [all, 3-1]\n": ["line 2", "a range such as 4-7"],
    "layers: [[1, 2], 1-2]\n": ["the same layers are given twice"],
    "selectors: [{kind: greedy, layers: [1]}]\n": ["line 2", "'greedy' has layers of its own"],
    "options: {demonstration: [1]}\n": ["line 2", "no option 'demonstration'"],
    "options: {reward: [two_way, best]}\n": ["line 2", "reward"],
    "options: {selector: [greedy]}\n": ["'selector' is not an option of its own"],
    "judges: [arm]\n": ["'arm' is what the grid makes"],
    "judges: [lenght]\n": ["line 2", "did you mean 'length'?"],
    "selectrs: [greedy]\n": ["line 2", "did you mean 'selectors'?"],
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_in_a_grid_is_named_with_its_line(tmp_path, text):
    path = tmp_path / "grid.yaml"
    path.write_text("studies: [{kind: world}]\n" + text, encoding="utf-8")
    with pytest.raises(BenchmarkConfigError) as raised:
        read_grid(path)
    for words in ["grid.yaml", *WRONG[text]]:
        assert words in str(raised.value)


def test_a_study_of_a_sweep_has_no_judges_of_its_own(tmp_path):
    (tmp_path / "grid.yaml").write_text("studies:\n- kind: world\n  judges: [length]\n", encoding="utf-8")
    with pytest.raises(BenchmarkConfigError, match=r"line 3, studies.0.judges: a study of a sweep has no judges"):
        read_grid(tmp_path / "grid.yaml")
