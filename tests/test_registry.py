"""The registry: names, presets, options that are refused in words, and what other packages add."""

from __future__ import annotations

import inspect
import sys
from importlib import metadata
from typing import Literal

import pytest
from pydantic import BaseModel

from arm_lens.judges.options import QuestionOptions
from arm_lens.registry import (
    JUDGES,
    SELECTORS,
    BrokenEntryPointWarning,
    OptionsError,
    OptionsModel,
    Registry,
    SelectorSpec,
    UnknownNameError,
)
from arm_lens.selection import PUBLISHED, Greedy, RandomHeads, Reinforce, Selector, selector_of


class Question(OptionsModel):
    layout: Literal["scalar", "ranked"] = "scalar"
    text: str = ""


class Options(OptionsModel):
    question: Question = Question()
    k: int = 3


SPEC = SelectorSpec(name="some", options=Options, summary="Something.")


def test_options_of_a_group_may_be_given_beside_it():
    said = [{"layout": "ranked"}, {"question": {"layout": "ranked"}}, {"question": Question(layout="ranked")}]
    assert all(SPEC.parse(one) == Options(question=Question(layout="ranked")) for one in said)
    assert SPEC.parse({"question": {"text": "?"}, "layout": "ranked"}).question == Question(text="?", layout="ranked")
    with pytest.raises(OptionsError, match="'layout' is given twice"):
        SPEC.parse({"question": {"layout": "scalar"}, "layout": "ranked"})


def test_a_preset_has_its_own_defaults_and_what_is_said_goes_before_them():
    preset = SPEC.preset("mine", {"layout": "ranked", "k": 5}, summary="Mine.").preset("own", {"k": 7}, summary="Own.")
    assert (preset.name, preset.preset_of) == ("own", "some")
    assert preset.parse() == Options(question=Question(layout="ranked"), k=7)
    assert preset.parse({"question": {"text": "?"}}).question == Question(layout="ranked", text="?")
    assert preset.parse({"layout": "scalar"}).question == Question()


def test_what_is_wrong_is_said_with_what_there_is():
    with pytest.raises(OptionsError, match=r"'some' has no option 'j'; it has question \(layout, text\), k"):
        SPEC.parse({"j": 1})
    with pytest.raises(OptionsError, match="'some' has no option 'colour' in 'question'; it has layout, text"):
        SPEC.parse({"question": {"colour": 1}})
    with pytest.raises(OptionsError, match="'some', k: Input should be a valid integer"):
        SPEC.parse({"k": "many"})
    with pytest.raises(OptionsError, match="'fixed_heads' needs the option 'heads'"):
        selector_of("fixed_heads")


def test_a_selector_is_found_by_name_preset_or_options():
    assert selector_of("published") == PUBLISHED and selector_of("greedy") == Greedy()
    assert selector_of({"kind": "published", "steps": 7}) == PUBLISHED.model_copy(update={"steps": 7})
    like = selector_of({"kind": "random_heads", "like": {"kind": "reinforce", "steps": 5}, "like_seed": 2})
    assert like == RandomHeads(like=Reinforce(steps=5), like_seed=2)
    assert selector_of(like.model_dump(mode="json")) == like and selector_of(like) is like
    with pytest.raises(UnknownNameError, match=r"no selector 'gready'; there are .*greedy, .*published"):
        selector_of("gready")
    with pytest.raises(ValueError, match="given by its name"):
        selector_of({"steps": 3})


@pytest.mark.parametrize("name", list(SELECTORS))
def test_every_option_of_every_selector_is_reached_from_a_configuration(name):
    spec = SELECTORS[name]
    assert issubclass(spec.options, Selector) and spec.summary.endswith(".")
    if name == "fixed_heads":
        return
    selector = selector_of(name)
    for option, value in selector.model_dump(mode="json").items():
        if option != "kind":
            assert selector_of({"kind": name, option: value}) == selector


class First(Selector):
    """Another package's."""

    kind: Literal["first"] = "first"

    def _search(self, objective, seed, progress):
        raise NotImplementedError


FIRST = SelectorSpec(name="first", options=First, summary="The first head.")


@pytest.fixture
def registry(monkeypatch):
    """A registry of its own, filled from an installed package that brings two entry points, one of them broken."""
    monkeypatch.setitem(sys.modules, "others_package", sys.modules[__name__])
    points = [
        metadata.EntryPoint("first", "others_package:FIRST", "tests.selectors"),
        metadata.EntryPoint("gone", "no_such_package:SPEC", "tests.selectors"),
    ]
    monkeypatch.setattr("arm_lens.registry.entry_points", lambda group: points if group == "tests.selectors" else [])
    return Registry("tests.selectors", SelectorSpec)


def test_another_package_adds_to_it_and_a_broken_one_breaks_nothing(registry):
    with pytest.warns(BrokenEntryPointWarning, match="'gone' cannot be loaded from no_such_package:SPEC"):
        assert "first" in registry
    assert registry["first"] is FIRST and registry["first"].parse() == First()
    with pytest.raises(UnknownNameError, match="'gone' of an installed package cannot be loaded"):
        registry["gone"]


@pytest.mark.filterwarnings("ignore::arm_lens.registry.BrokenEntryPointWarning")
def test_specs_are_registered_by_a_call(registry):
    registry.register(SPEC)
    registry.register([SPEC.preset("mine", {}, summary="Mine."), SPEC])
    assert list(registry) == ["some", "mine", "first"] and len(registry) == 3
    with pytest.raises(ValueError, match="two selectors called 'some'"):
        registry.register(SelectorSpec(name="some", options=BaseModel, summary="Another."))
    with pytest.raises(TypeError, match=r"not int|Type-check"):  # beartype speaks first under test
        registry.register([3])


@pytest.mark.parametrize(("group", "registry"), [("arm_lens.judges", JUDGES), ("arm_lens.selectors", SELECTORS)])
def test_ours_are_declared_as_any_package_would_declare_them(group, registry):
    declared = {point.name for point in metadata.entry_points(group=group)}
    assert declared == {name for name in registry if registry[name].preset_of is None} - {"likelihood_ratio"}


@pytest.mark.parametrize("options", [QuestionOptions, Reinforce])
def test_the_help_of_options_says_what_each_is(options):
    described = {name: field.description for name, field in options.model_fields.items() if field.description}
    assert {"criterion_text", "on_too_long"} <= described.keys() or {
        "masks",
        "final",
        "head_penalty",
    } <= described.keys()
    said = " ".join(inspect.getdoc(options).split())
    assert all(f"{name}: {' '.join(text.split())}" in said for name, text in described.items())
    assert said.count("Options: ") == 1
