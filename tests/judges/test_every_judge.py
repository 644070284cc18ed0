"""Every judge in the registry keeps the promises of `arm_lens.judges.base`; whoever adds one is held to them."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace

import pytest
import torch
import yaml
from judges.chat_server import ChatServer
from judges.endpoint_support import KEY, sure

import arm_lens
from arm_lens.engine.language_model import language_model
from arm_lens.judges import FittedJudge, Judge, fit_judge, load_judge
from arm_lens.judges.artefact import ArtefactError
from arm_lens.judges.checks import check_pairs
from arm_lens.judges.endpoint.judge import EndpointJudge
from arm_lens.judges.likelihood import LikelihoodJudge
from arm_lens.judges.template import JudgeTemplate
from arm_lens.preferences import PreferencePair
from arm_lens.registry import JUDGES, OptionsError, OptionsModel, UnknownNameError

pytestmark = pytest.mark.tl4

TEMPLATE = JudgeTemplate(
    header="", scalar="request: {prompt} reply: {response}", cue=" verdict:", yes=("yes",), no=("no",),
    ranked="request: {prompt} reply: {response_a} reply: {response_b}", first=("warm",), second=("cold",),
)  # fmt: skip
PAIRS = [
    PreferencePair(f"the {place}", f"the {place} is warm", f"it is cold near the {place}", id=place)
    for place in ("garden", "mill", "river", "church", "farm", "hotel")
]
PROMPTS, A, B = ["the school", "the bridge", "the market"], ["it is warm"] * 3, ["cold", "so cold .", "it is cold"]
QUICK = {"steps": 3, "masks": 4}
OPTIONS = {
    "arm": {"selector": "top_effect"},
    "arm_reinforce": {"selector": QUICK},
    "arm_reinforce_denoised": {"selector": QUICK},
    "arm_reinforce_add": {"selector": QUICK},
    "arm_published": {"selector": QUICK},
    "arm_greedy": {"selector": {"max_heads": 1}},
    "arm_soft_gate": {"selector": {"steps": 2}},
    "arm_hard_concrete": {"selector": {"steps": 2}},
    "arm_random_heads": {"selector": {"like": QUICK}},
    "arm_calibrated": {"selector": QUICK},
    "rating": {"template": asdict(replace(TEMPLATE, no=("river", "mill", "church", "hotel"), yes=("farm",)))},
    "voting_rationale": {"votes": 2, "rationale": {"max_tokens": 3}},
    "endpoint": {"model": "judge", "max_retries": 0, "timeout": 10.0},
}
"""What it takes for a judge to be quick, or to be made at all."""


@pytest.fixture(scope="module")
def folder(folder_of, tmp_path_factory):
    """A random model that says how it is to be asked, also about two responses."""
    folder = tmp_path_factory.mktemp("every") / "model"
    shutil.copytree(folder_of("llama"), folder)
    (folder / "judge_template.json").write_text(json.dumps(asdict(TEMPLATE)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return arm_lens.load_model(folder)


@pytest.fixture(scope="module")
def endpoint():
    with ChatServer(sure) as server:
        yield server.url


@pytest.fixture
def options(endpoint, folder, monkeypatch):
    """options(name): those a judge is made with here."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    here = {"endpoint": {"base_url": endpoint}, "likelihood_ratio": {"reference": str(folder)}}
    return lambda name: {**OPTIONS.get(name, {}), **here.get(name, {})}


@pytest.fixture
def fitted(model, options):
    """fitted(name, **more): a judge of that name."""
    reading = arm_lens.ReadingOptions(demonstrations=2, readings=4, seed=0)

    def fit(name, seed=1, **more):
        if JUDGES[name].judge is EndpointJudge:
            pytest.importorskip("openai", reason="the openai client is optional")
        return fit_judge(name, model, PAIRS, {**options(name), **more}, reading=reading, seed=seed)

    return fit


ON_BOTH = ("arm_reinforce", "arm_soft_gate", "sav", "few_shot", "rating", "voting_rationale", "likelihood")
"""Judges that use the engine in ways of their own; the others are not repeated on another TransformerLens."""


def marked(names):
    return [name if name in ON_BOTH else pytest.param(name, marks=pytest.mark.any_tl) for name in names]


EVERY = pytest.mark.parametrize("name", marked(JUDGES))


@pytest.mark.slow
@EVERY
def test_it_scores_and_prefers_one_by_one_as_in_a_batch(fitted, name):
    judge = fitted(name)
    assert isinstance(judge, JUDGES[name].judge) and isinstance(judge, Judge)
    if judge.compares_only:
        with pytest.raises(ValueError, match="has no score of one"):
            judge.score(PROMPTS, A)
        assert judge.orders(PROMPTS, A, B).shape == (3, 2)
    else:
        rewards = judge.score(PROMPTS, A, progress=False)
        single = torch.cat([judge.score([one], [two]) for one, two in zip(PROMPTS, A, strict=True)])
        torch.testing.assert_close(rewards, single, atol=1e-4, rtol=1e-4)
        assert rewards.shape == (3,) and torch.isfinite(rewards).all()
        gaps = judge.gaps(PROMPTS, A).double()
        torch.testing.assert_close(
            judge.margins(PROMPTS, A, B).double(), gaps - judge.gaps(PROMPTS, B).double(), atol=1e-4, rtol=0
        )
        with pytest.raises(ValueError, match="2 prompts for 1 responses"):
            judge.score(["a", "b"], ["c"])
    several, margins = judge.prefer(PROMPTS, A, B), judge.margins(PROMPTS, A, B)
    assert [one.margin for one in several] == pytest.approx(margins.tolist(), abs=1e-6)
    for number, (prompt, a, b) in enumerate(zip(PROMPTS, A, B, strict=True)):
        alone = judge.prefer(prompt, a, b)
        assert alone.margin == pytest.approx(several[number].margin, abs=1e-4)
        assert alone.preferred == ("a" if alone.margin > 0 else "b" if alone.margin < 0 else "tie")
    assert judge.prefer([], [], []) == []
    with pytest.raises(ValueError, match="2 prompts for 3 first and 1 second"):
        judge.margins(["a", "b"], ["c", "d", "e"], ["f"])


@pytest.mark.any_tl
@EVERY
def test_it_says_of_itself_what_a_benchmark_wants_to_know(fitted, name):
    judge = fitted(name)
    if not judge.compares_only:
        rewards, gaps = judge.rewards_and_gaps(PROMPTS, A)
        if judge.log_odds:
            torch.testing.assert_close(rewards.double(), torch.sigmoid(gaps.double()), atol=1e-5, rtol=0)
        if judge.states_probability:
            assert ((rewards >= 0) & (rewards <= 1)).all()
        assert judge.threshold is None or judge.states_probability or judge.threshold in (0.5, 3.0)  # a rating's middle
    json.dumps(judge.facts())
    if "heads" in judge.facts():
        assert judge.facts()["n_heads"] == len(judge.facts()["heads"]) == len(judge.heads)


@pytest.mark.any_tl
@pytest.mark.slow
@EVERY
def test_it_is_a_reward_function_of_trl(fitted, name):
    judge = fitted(name)
    assert isinstance(judge.__name__, str) and judge.__name__.isidentifier()
    assert not isinstance(judge, torch.nn.Module)  # which TRL would take for a sequence classifier
    if judge.compares_only:
        return
    columns = {"completion_ids": [[1], [2], [3]], "trainer_state": None, "label": [1, 0, 1]}
    found = judge(prompts=PROMPTS, completions=A, **columns)
    assert all(type(one) is float for one in found)
    assert found == pytest.approx(judge.score(PROMPTS, A).tolist(), abs=1e-6)
    turns = [[{"role": role, "content": text}] for role, text in zip(["user"] * 3, PROMPTS, strict=True)]
    replies = [[{"role": "assistant", "content": text}] for text in A]
    assert judge(prompts=turns, completions=replies) == pytest.approx(found, abs=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # as in a trainer with bf16=True
        assert judge(prompts=PROMPTS, completions=A) == pytest.approx(found, abs=1e-6)
    with pytest.raises(TypeError):
        judge(PROMPTS, A)


FITTED = [name for name, spec in JUDGES.items() if issubclass(spec.judge, FittedJudge)]


def test_every_judge_that_learns_from_examples_can_be_saved():
    for name, spec in JUDGES.items():
        if name not in FITTED:
            assert name == "endpoint" or not spec.reads_examples(None), name


@pytest.mark.slow
@pytest.mark.parametrize("name", marked(FITTED))
def test_what_was_saved_judges_as_before(fitted, model, tmp_path, name):
    judge = fitted(name)
    folder = judge.save(tmp_path / "judge")
    assert not [one.name for one in folder.iterdir() if one.suffix in (".pkl", ".pickle", ".joblib", ".pt", ".bin")]
    for loaded in (load_judge(folder, model), type(judge).load(folder, model), load_judge(folder)):
        assert type(loaded) is type(judge) and loaded.facts() == judge.facts()
        assert loaded.__name__ == judge.__name__ and repr(loaded) == repr(judge)
        assert torch.equal(loaded.margins(PROMPTS, A, B), judge.margins(PROMPTS, A, B))
        if not judge.compares_only:
            assert torch.equal(loaded.score(PROMPTS, A), judge.score(PROMPTS, A))
    other = next(JUDGES[one].judge for one in FITTED if JUDGES[one].judge is not type(judge))
    with pytest.raises(ArtefactError, match=rf"holds a {judge.kind}, not a {other.kind}"):
        other.load(folder, model)


def test_no_two_kinds_of_judge_are_called_the_same():
    classes = {JUDGES[name].judge for name in FITTED}
    assert len({one.kind for one in classes}) == len(classes) == 7


def merged(one, other):
    """Two configurations of a judge as one."""
    both = [key for key in one.keys() & other.keys() if isinstance(one[key], dict) and isinstance(other[key], dict)]
    return {**one, **other, **{key: merged(one[key], other[key]) for key in both}}


def paths(options, front=()):
    """Every option, those of groups and of nested options too."""
    for name, value in options.items():
        if isinstance(value, dict):
            yield from paths(value, (*front, name))
        yield (*front, name), value


@pytest.mark.any_tl
@EVERY
def test_every_option_is_reached_from_a_yaml_file(options, name):
    spec = JUDGES[name]
    given = spec.parse(options(name))
    written = given.model_dump(mode="json")
    for path, value in paths(written):
        nested = value
        for part in reversed(path):
            nested = {part: nested}
        if path[0] == "selector" and len(path) > 1:
            nested["selector"]["kind"] = written["selector"]["kind"]
        read = yaml.safe_load(yaml.safe_dump(nested))
        assert spec.parse(merged(spec.options.grouped(options(name)), read)) == given, path
    assert spec.parse(yaml.safe_load(yaml.safe_dump(written))) == given


@EVERY
def test_an_option_that_it_does_not_have_is_refused_and_those_there_are_are_listed(options, name):
    spec = JUDGES[name]
    with pytest.raises(OptionsError, match=f"the judge '{name}' has no option 'colour'; it has ") as refused:
        spec.parse({**options(name), "colour": "blue"})
    for field in spec.options.model_fields:
        assert field in str(refused.value)
    for group in getattr(spec.options, "groups", ()):
        with pytest.raises(OptionsError, match=f"has no option 'colour' in '{group}'"):
            spec.parse({**options(name), group: {"colour": "blue"}})
    assert issubclass(spec.options, OptionsModel) and spec.options.model_config["frozen"]


@EVERY
def test_it_has_a_style_and_words_of_its_own(name):
    spec = JUDGES[name]
    assert spec.summary.endswith(".") and "\n" not in spec.summary
    assert spec.style.color.startswith("#") and len(spec.style.color) == 7 and spec.style.label
    others = [one.style for other, one in JUDGES.items() if other != name]
    assert spec.style.symbol not in {one.symbol for one in others}
    assert spec.style.label not in {one.label for one in others}


@pytest.mark.any_tl
@pytest.mark.slow
@EVERY
def test_it_depends_on_a_seed_if_it_says_so_and_only_then(fitted, options, name):
    spec = JUDGES[name]
    one, two, again = fitted(name, seed=1), fitted(name, seed=2), fitted(name, seed=1)

    def said(judge):
        return torch.cat([judge.margins(PROMPTS, A, B), judge.margins(PROMPTS, B[::-1], A)])

    assert torch.equal(said(one), said(again))
    if not spec.random(spec.parse(options(name))):
        assert torch.equal(said(one), said(two))


@EVERY
def test_its_model_is_a_language_model(fitted, model, name):
    judge = fitted(name)
    if hasattr(judge, "model") and not isinstance(judge, EndpointJudge):
        assert judge.model is language_model(model)
    assert isinstance(judge, LikelihoodJudge) == name.startswith("likelihood")


def test_a_judge_that_there_is_not_is_refused_by_name(model):
    with pytest.raises(UnknownNameError, match="no judge 'arm_reinforced'; there are arm, arm_reinforce, "):
        fit_judge("arm_reinforced", model, PAIRS)
    with pytest.raises(
        OptionsError, match="'greedy' has no option 'steps'; it has kind, head_penalty, layers, max_heads"
    ):
        fit_judge("arm", model, PAIRS, {"selector": {"kind": "greedy", "steps": 5}})


def test_pairs_are_checked_as_everywhere():
    with pytest.raises(ValueError, match="1 prompts for 1 first and 2 second"):
        check_pairs(["a"], ["b"], ["c", "d"])
